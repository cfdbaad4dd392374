package payments_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v85/webhook"

	"github.com/pgoutbox/pgoutbox/internal/payments"
)

const hookSecret = "whsec_test"

func signed(body, secret string, at time.Time) string {
	return webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(body), Secret: secret, Timestamp: at}).Header
}

const (
	hookSucceeded = `{"id":"evt_1","object":"event","type":"payment_intent.succeeded","api_version":"2020-08-27","data":{"object":{"id":"pi_1","object":"payment_intent","status":"succeeded","amount":1299,"currency":"eur"}}}`
	hookFailed    = `{"id":"evt_2","object":"event","type":"payment_intent.payment_failed","data":{"object":{"id":"pi_2","status":"requires_payment_method","amount":1,"currency":"usd","last_payment_error":{"type":"card_error","code":"card_declined","decline_code":"lost_card"}}}}`
	hookOther     = `{"id":"evt_3","object":"event","type":"customer.created","data":{"object":{"id":"cus_1"}}}`
)

func TestParseWebhook(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]payments.WebhookEvent{
		hookSucceeded: {ID: "evt_1", Type: "payment_intent.succeeded", IntentID: "pi_1", Intent: payments.Intent{
			ID: "pi_1", Status: payments.StatusSucceeded, Amount: 1299, Currency: "EUR",
		}},
		hookFailed: {ID: "evt_2", Type: "payment_intent.payment_failed", IntentID: "pi_2", Intent: payments.Intent{
			ID: "pi_2", Status: payments.StatusDeclined, DeclineCode: "lost_card", Amount: 1, Currency: "USD",
		}},
		hookOther: {ID: "evt_3", Type: "customer.created"},
	} {
		got, err := payments.ParseWebhook([]byte(body), signed(body, hookSecret, time.Now()), hookSecret)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", want.ID, got, err)
		}
	}
}

func TestParseWebhookDistrusts(t *testing.T) {
	t.Parallel()
	now := time.Now()
	if got, err := payments.ParseWebhook([]byte(hookSucceeded), signed(hookSucceeded, hookSecret, now)); !errors.Is(err, payments.ErrWebhookSignature) {
		t.Errorf("without a secret: got %+v, %v", got, err)
	}
	for _, secrets := range [][]string{{hookSecret, "whsec_next"}, {"whsec_before", hookSecret}, {"", hookSecret}} {
		if got, err := payments.ParseWebhook([]byte(hookSucceeded), signed(hookSucceeded, hookSecret, now), secrets...); err != nil || got.ID != "evt_1" {
			t.Errorf("one of %v: got %+v, %v", secrets, got, err)
		}
		if got, err := payments.ParseWebhook([]byte(hookSucceeded), signed(hookSucceeded, "whsec_other", now), secrets...); !errors.Is(err, payments.ErrWebhookSignature) {
			t.Errorf("none of %v: got %+v, %v", secrets, got, err)
		}
	}
	for name, tt := range map[string]struct{ header, secret string }{
		"no header":        {"", hookSecret},
		"nonsense":         {"t=now,v1=zz", hookSecret},
		"another secret":   {signed(hookSucceeded, "whsec_other", now), hookSecret},
		"another body":     {signed(hookFailed, hookSecret, now), hookSecret},
		"too old":          {signed(hookSucceeded, hookSecret, now.Add(-6*time.Minute)), hookSecret},
		"no secret at all": {signed(hookSucceeded, "", now), ""},
	} {
		if got, err := payments.ParseWebhook([]byte(hookSucceeded), tt.header, tt.secret); !errors.Is(err, payments.ErrWebhookSignature) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	for _, body := range []string{
		"", "null", "{}", `[]`, `{"object":"event"}`, `{"id":"evt_1","object":"event","type":"payment_intent.succeeded"}`,
		`{"id":"evt_1","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"pi_1","status":"new to us"}}}`,
		`{"id":"evt_1","object":"event","type":"payment_intent.succeeded","data":{"object":{"status":"succeeded"}}}`,
	} {
		if got, err := payments.ParseWebhook([]byte(body), signed(body, hookSecret, now), hookSecret); !errors.Is(err, payments.ErrWebhookBody) {
			t.Errorf("%q: got %+v, %v", body, got, err)
		}
	}
}
