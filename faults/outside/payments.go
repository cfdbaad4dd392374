package outside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/stripe/stripe-go/v85/webhook"

	"github.com/pgoutbox/pgoutbox/internal/payments/stripefake"
)

// webhookTimeout bounds one delivery of a webhook.
const webhookTimeout = 10 * time.Second

// PaymentsConfig says how a Stripe is set up.
type PaymentsConfig struct {
	// File takes a line for each change of an intent. It must not be there yet.
	File string
	// SecretKey is what clients have to know.
	SecretKey string
	// Seed is where the coins of the faults come from.
	Seed uint64
}

// Payments is a Stripe with a state of its own. It charges an intent at most once and honours idempotency keys for ever; that
// an order is charged once is up to its client, and what the ledger tells.
type Payments struct {
	*Server
	stripe  *stripefake.Stripe
	journal *journal
}

// StartPayments runs a Stripe until Close.
func StartPayments(c PaymentsConfig) (*Payments, error) {
	j, err := openJournal(c.File)
	if err != nil {
		return nil, err
	}
	p := &Payments{journal: j}
	p.stripe = stripefake.New(c.SecretKey, p.record)
	if p.Server, err = start(p.stripe, c.Seed); err != nil {
		return nil, errors.Join(err, j.close())
	}
	return p, nil
}

func (p *Payments) record(c stripefake.Change) error {
	line, err := json.Marshal(struct {
		At   time.Time `json:"at"`
		What string    `json:"what"`
		stripefake.Intent
	}{time.Now(), c.What, c.Intent})
	if err != nil {
		return err
	}
	return p.journal.append(line, func() {})
}

// SetSearchLag makes the search find an intent only when it is that old.
func (p *Payments) SetSearchLag(lag time.Duration) { p.stripe.SetSearchLag(lag) }

// Intents returns all intents, the oldest first.
func (p *Payments) Intents() []stripefake.Intent { return p.stripe.Intents() }

// Order is what was done for an order.
type Order struct {
	Intents  int      // how many intents were made for it
	Charges  int      // how often money was moved
	Amounts  []int64  // of each charge
	EventIDs []string // of the events that asked for its intents, each once
}

// Ledger tells what was done for each order, by its id.
func (p *Payments) Ledger() map[string]Order {
	orders := map[string]Order{}
	asked := map[[2]string]bool{}
	for _, intent := range p.stripe.Intents() {
		o := orders[intent.OrderID]
		o.Intents++
		o.Charges += intent.Charges
		for range intent.Charges {
			o.Amounts = append(o.Amounts, intent.Amount)
		}
		if by := [2]string{intent.OrderID, intent.EventID}; !asked[by] {
			asked[by] = true
			o.EventIDs = append(o.EventIDs, intent.EventID)
		}
		orders[intent.OrderID] = o
	}
	return orders
}

// Settle gives an intent that is processing, because its method is stripefake.MethodSlow, its result.
func (p *Payments) Settle(intentID string, paid bool) error { return p.stripe.Settle(intentID, paid) }

// SendWebhook tells the service at url of the intent as it is now, signed with the secret. It can be sent any number of times, as
// Stripe does. An answer other than 2xx is an error: Stripe would try again later.
func (p *Payments) SendWebhook(ctx context.Context, url, secret, intentID string) error {
	payload, err := p.stripe.Event(intentID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, webhookTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: payload, Secret: secret, Timestamp: time.Now()})
	r.Header.Set("Stripe-Signature", signed.Header)
	r.Header.Set("Content-Type", "application/json")
	r.Close = true // each delivery has a connection of its own, and none is left over
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("outside: send a webhook: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return &WebhookRefusedError{answer.StatusCode}
	}
	return nil
}

// WebhookRefusedError says that the service did not take a webhook.
type WebhookRefusedError struct{ Status int }

func (e *WebhookRefusedError) Error() string {
	return fmt.Sprintf("outside: the webhook was answered with %d", e.Status)
}

// Close ends the server and closes the file. What it told can still be asked for.
func (p *Payments) Close() error { return errors.Join(p.stop(), p.journal.close()) }
