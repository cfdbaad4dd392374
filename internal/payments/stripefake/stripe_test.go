package stripefake_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/payments/stripefake"
)

// What cannot be recorded has not happened, and can be tried again under the same key.
func TestUnrecordedChangesDoNotHappen(t *testing.T) {
	t.Parallel()
	full := errors.New("the disk is full")
	broken := true
	var recorded []string
	fake := stripefake.New("sk", func(c stripefake.Change) error {
		if broken {
			return full
		}
		recorded = append(recorded, c.What)
		return nil
	})
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	stripe, err := payments.NewStripe(payments.StripeConfig{SecretKey: "sk", URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	p := payments.CreateParams{IdempotencyKey: "e", Amount: 1, Currency: "EUR", Method: stripefake.MethodPays}
	var unknown *payments.UnknownError
	if _, err := stripe.Create(t.Context(), p); !errors.As(err, &unknown) || len(fake.Intents()) != 0 {
		t.Errorf("%v, %+v", err, fake.Intents())
	}
	broken = false
	intent, err := stripe.Create(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	broken = true
	if _, err := stripe.Confirm(t.Context(), intent.ID); !errors.As(err, &unknown) || fake.Intents()[0].Charges != 0 {
		t.Errorf("%v, %+v", err, fake.Intents())
	}
	broken = false
	if paid, err := stripe.Confirm(t.Context(), intent.ID); err != nil || paid.Status != payments.StatusSucceeded {
		t.Errorf("%+v, %v", paid, err)
	}
	if got := strings.Join(recorded, " "); got != "created charged" {
		t.Error(got)
	}
}

// A key gives the first answer again, also when the intent has changed since; a key of another request gives none.
func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	fake := stripefake.New("sk", nil)
	send := func(path, key, form string) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), "POST", path, strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer sk")
		r.Header.Set("Idempotency-Key", key)
		w := httptest.NewRecorder()
		fake.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	const form = "amount=5&currency=eur&payment_method=pm_card_visa"
	_, first := send("/v1/payment_intents", "k1", form)
	if code, _ := send("/v1/payment_intents/pi_1/confirm", "k2", ""); code != 200 {
		t.Error(code)
	}
	if code, again := send("/v1/payment_intents", "k1", form); code != 200 || again != first {
		t.Errorf("%d %s, not %s", code, again, first)
	}
	if code, _ := send("/v1/payment_intents/pi_1/confirm", "k2", ""); code != 200 {
		t.Errorf("the same confirmation: %d", code)
	}
	if code, body := send("/v1/payment_intents/pi_1/confirm", "k1", ""); code != 400 || !strings.Contains(body, "idempotency_error") {
		t.Errorf("the key of another request: %d %s", code, body)
	}
	if code, body := send("/v1/payment_intents/pi_1/confirm", "k3", ""); code != 400 || !strings.Contains(body, "payment_intent_unexpected_state") {
		t.Errorf("another confirmation: %d %s", code, body)
	}
	if code, _ := send("/v1/payment_intents", "k4", "amount=0"); code != 400 {
		t.Errorf("no amount: %d", code)
	}
	if code, _ := send("/v1/payment_intents", "k4", form); code != 200 {
		t.Errorf("the key of a refused request: %d", code)
	}
	if intents := fake.Intents(); len(intents) != 2 || intents[0].Charges != 1 || intents[1].Charges != 0 {
		t.Errorf("%+v", intents)
	}
}
