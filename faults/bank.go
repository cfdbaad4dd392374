package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgoutbox/pgoutbox/faults/outside"
	"github.com/pgoutbox/pgoutbox/internal/payments/stripefake"
)

// webhookTries is how often a webhook that is not taken is sent again. Stripe does so for days.
const webhookTries = 20

// webhooksAtOnce is how many are sent in a pass.
const webhooksAtOnce = 16

// bank decides what takes its time at the provider, tells the service of results by webhooks, and knows how each order of its customers has
// to end. Its methods do nothing where there is none.
type bank struct {
	s   *stage
	rng *rand.Rand

	opening sync.Mutex // held by the one who goes through the payments

	mu      sync.Mutex
	methods map[string]string // by order
	paid    map[string]bool   // how it has to end
	told    map[string]int    // webhooks that are still to be sent, by intent; 0: all were
	tries   map[string]int

	webhooks, refused, forged int
	ended                     map[string]int // orders, by method and end
}

func newBank(s *stage) *bank {
	return &bank{
		s: s, rng: rand.New(rand.NewPCG(s.seed, 701)), methods: map[string]string{}, paid: map[string]bool{}, told: map[string]int{}, tries: map[string]int{},
		ended: map[string]int{},
	}
}

// open goes through the payments once: what is processing gets its result, and of a result the service is told, mostly once, by some twice and
// by some never; it has to ask then. A webhook may overtake the answer that it is about. Results come first, and what is not told in a pass is in the
// next: a service that has to be told of everything before anything else comes to its end would wait for long.
func (b *bank) open(ctx context.Context) {
	if b == nil {
		return
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	var due []string
	for _, i := range b.s.payments.Intents() {
		switch i.Status {
		case stripefake.StatusProcessing:
			if b.rng.IntN(4) == 0 {
				b.settle(i)
			}
		case stripefake.StatusSucceeded, stripefake.StatusRequiresPaymentMethod:
			if _, known := b.told[i.ID]; !known {
				b.told[i.ID] = []int{0, 0, 1, 1, 1, 1, 2, 2}[b.rng.IntN(8)]
			}
			if b.told[i.ID] > 0 {
				due = append(due, i.ID)
			}
		}
	}
	var sending errgroup.Group
	for _, intent := range due[:min(len(due), webhooksAtOnce)] {
		url := "http://" + b.s.apis[b.rng.IntN(len(b.s.apis))].Addr() + "/v1/webhooks/stripe"
		forged := b.rng.IntN(20) == 0
		sending.Go(func() error {
			b.tell(ctx, url, intent, forged)
			return nil
		})
	}
	_ = sending.Wait()
}

func (b *bank) settle(i stripefake.Intent) {
	paid := b.rng.IntN(5) > 0
	b.mu.Lock()
	b.paid[i.OrderID] = paid
	b.mu.Unlock()
	if err := b.s.payments.Settle(i.ID, paid); err != nil {
		b.s.violations.add("money: %v", err)
	}
}

// tell sends a webhook to a process, now and then first one that is signed by somebody else.
func (b *bank) tell(ctx context.Context, url, intent string, forged bool) {
	send := func(secret string) (status int, err error) {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		err = b.s.payments.SendWebhook(ctx, url, secret, intent)
		var refused *outside.WebhookRefusedError
		switch {
		case errors.As(err, &refused):
			return refused.Status, nil
		case err != nil:
			return 0, err
		}
		return http.StatusOK, nil
	}
	if forged {
		if status, err := send("whsec_of_somebody_else"); err == nil && status != http.StatusBadRequest && status < 500 {
			b.s.violations.add("money: a webhook that somebody else signed was answered with %d", status)
		}
	}
	status, err := send(hookSecret)
	b.mu.Lock()
	defer b.mu.Unlock()
	if forged {
		b.forged++
	}
	switch {
	case err == nil && status == http.StatusOK:
		b.webhooks++
		b.told[intent]--
		return
	case err == nil && status < 500:
		b.s.violations.add("money: a webhook was answered with %d", status)
	}
	b.refused++
	if b.tries[intent]++; b.tries[intent] > webhookTries {
		b.told[intent] = 0
	}
}

// judge holds an order to how it had to end.
func (b *bank) judge(order, status string, c outside.Order, v *verdict) {
	if b == nil || b.methods[order] == "" {
		return
	}
	want := map[bool]string{true: "paid", false: "payment_failed"}[b.paid[order]]
	b.ended[b.methods[order]+" "+status]++
	if status != want {
		v.Lost++
		v.Found = append(v.Found, fmt.Sprintf("order %s, by %s, is %s and should be %s; it was charged %d times", order, b.methods[order], status, want, c.Charges))
	}
}

// say tells how many orders came to which end.
func (b *bank) say() {
	if b == nil {
		return
	}
	intents, charges := b.s.payments.Intents(), 0
	for _, i := range intents {
		charges += i.Charges
	}
	n := b.s.payments.Injected()
	b.s.say("money: %d checkouts ended as %v; of all orders %d intents and %d charges; %d requests at the provider: %+v\n", len(b.methods), b.ended, len(intents), charges, n.Requests, n)
	b.s.say("money: %d webhooks were taken, %d not, and %d were forged\n", b.webhooks, b.refused, b.forged)
}
