package outside_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgoutbox/pgoutbox/faults/outside"
	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/payments/stripefake"
)

const (
	secretKey  = "sk_test_harness"
	hookSecret = "whsec_harness"
)

func startPayments(t *testing.T) (judge *outside.Payments, stripe *payments.Stripe, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "payments")
	judge, err := outside.StartPayments(outside.PaymentsConfig{File: file, SecretKey: secretKey, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := judge.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	stripe, err = payments.NewStripe(payments.StripeConfig{SecretKey: secretKey, URL: judge.URL(), Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	return judge, stripe, file
}

func params(event, order string) payments.CreateParams {
	return payments.CreateParams{IdempotencyKey: event, Amount: 1299, Currency: "EUR", Method: stripefake.MethodPays, OrderID: order}
}

// pay is what a careful client does: it asks before it does anything again, until it knows.
func pay(ctx context.Context, stripe *payments.Stripe, p payments.CreateParams) (payments.Intent, error) {
	for {
		if err := ctx.Err(); err != nil {
			return payments.Intent{}, err
		}
		intent, err := stripe.Find(ctx, p.IdempotencyKey)
		if errors.Is(err, payments.ErrNotFound) {
			intent, err = stripe.Create(ctx, p)
		}
		if err == nil {
			intent, err = stripe.Confirm(ctx, intent.ID)
		}
		if err == nil {
			return intent, nil
		}
	}
}

// Whatever is lost or refused, a careful client charges once; and the file tells what the ledger tells.
func TestPaymentsChargeOnce(t *testing.T) {
	t.Parallel()
	judge, stripe, file := startPayments(t)
	judge.SetFaults(outside.Faults{Refuse: .2, LoseRequest: .2, LoseAnswer: .2})
	judge.SetSearchLag(time.Hour) // nothing is found: the idempotency key alone tells
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for n := range 5 {
				order := fmt.Sprintf("order-%d-%d", c, n)
				if intent, err := pay(ctx, stripe, params("event-"+order, order)); err != nil || intent.Status != payments.StatusSucceeded {
					t.Errorf("%+v, %v", intent, err)
				}
			}
		})
	}
	clients.Wait()
	if n := judge.Injected(); n.Refused == 0 || n.LostRequests == 0 || n.LostAnswers == 0 {
		t.Errorf("%+v", n)
	}
	ledger := judge.Ledger()
	if len(ledger) != 20 {
		t.Errorf("%d orders", len(ledger))
	}
	for id, order := range ledger {
		if order.Intents != 1 || order.Charges != 1 || !slices.Equal(order.Amounts, []int64{1299}) || !slices.Equal(order.EventIDs, []string{"event-" + id}) {
			t.Errorf("%s: %+v", id, order)
		}
	}
	charged := map[string]int{}
	for _, line := range lines[struct {
		What    string `json:"what"`
		OrderID string `json:"order_id"`
	}](t, file) {
		if line.What == "charged" {
			charged[line.OrderID]++
		}
	}
	if len(charged) != 20 {
		t.Errorf("%d orders are charged in the file", len(charged))
	}
}

// The ledger shows what a careless client does.
func TestPaymentsTellOfTwoCharges(t *testing.T) {
	t.Parallel()
	judge, stripe, _ := startPayments(t)
	for _, event := range []string{"e1", "e2"} {
		if _, err := pay(t.Context(), stripe, params(event, "o")); err != nil {
			t.Fatal(err)
		}
	}
	got := judge.Ledger()["o"]
	if got.Intents != 2 || got.Charges != 2 || !slices.Equal(got.Amounts, []int64{1299, 1299}) || !slices.Equal(got.EventIDs, []string{"e1", "e2"}) {
		t.Errorf("%+v", got)
	}
}

func TestPaymentsSearchLags(t *testing.T) {
	t.Parallel()
	judge, stripe, _ := startPayments(t)
	judge.SetSearchLag(time.Hour)
	made, err := stripe.Create(t.Context(), params("e", "o"))
	if err != nil {
		t.Fatal(err)
	}
	if found, err := stripe.Find(t.Context(), "e"); !errors.Is(err, payments.ErrNotFound) {
		t.Errorf("%+v, %v", found, err)
	}
	judge.SetSearchLag(0)
	if found, err := stripe.Find(t.Context(), "e"); err != nil || found != made {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestPaymentsWebhook(t *testing.T) {
	t.Parallel()
	judge, stripe, _ := startPayments(t)
	slow := params("e", "o")
	slow.Method = stripefake.MethodSlow
	intent, err := pay(t.Context(), stripe, slow)
	if err != nil || intent.Status != payments.StatusProcessing || judge.Ledger()["o"].Charges != 0 {
		t.Fatalf("%+v, %v", intent, err)
	}
	var got []payments.WebhookEvent
	status := http.StatusOK
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload, _ := io.ReadAll(r.Body)
		event, err := payments.ParseWebhook(payload, r.Header.Get("Stripe-Signature"), hookSecret)
		if err != nil {
			t.Error(err)
		}
		got = append(got, event)
		w.WriteHeader(status)
	}))
	t.Cleanup(service.Close)
	if err := judge.Settle(intent.ID, true); err != nil {
		t.Fatal(err)
	}
	if err := judge.Settle(intent.ID, true); !errors.Is(err, stripefake.ErrNotProcessing) {
		t.Errorf("settled twice: %v", err)
	}
	for range 2 {
		if err := judge.SendWebhook(t.Context(), service.URL, hookSecret, intent.ID); err != nil {
			t.Error(err)
		}
	}
	want := payments.WebhookEvent{ID: "evt_pi_1_succeeded", Type: "payment_intent.succeeded", IntentID: "pi_1", Intent: intent}
	want.Intent.Status = payments.StatusSucceeded
	if !slices.Equal(got, []payments.WebhookEvent{want, want}) {
		t.Errorf("%+v", got)
	}
	if order := judge.Ledger()["o"]; order.Charges != 1 {
		t.Errorf("%+v", order)
	}
	status = http.StatusServiceUnavailable
	var refused *outside.WebhookRefusedError
	if err := judge.SendWebhook(t.Context(), service.URL, hookSecret, intent.ID); !errors.As(err, &refused) || refused.Status != status {
		t.Errorf("%v", err)
	}
}
