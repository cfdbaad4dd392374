package handlers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v85/webhook"

	"github.com/pgoutbox/pgoutbox/handlers"
)

const webhookSecret = "whsec_test"

func signed(payload, secret string, at time.Time) string {
	return webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(payload), Secret: secret, Timestamp: at}).Header
}

func TestStripeWebhookSettlesAnOrder(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(cfg *handlers.Config) { cfg.StripeWebhookSecrets = []string{webhookSecret} })
	c := s.customer()
	id := c.order()
	s.exec(`insert into payments (order_id, idempotency_key, intent_id, state, amount, currency)
		select id, checkout_event_id, 'pi_1', 'created', amount, currency from orders`)
	payload := func(event, status string, amount string) string {
		return `{"id":"` + event + `","object":"event","type":"payment_intent.` + status + `","data":{"object":{"id":"pi_1","object":"payment_intent",
			"status":"` + status + `","amount":` + amount + `,"currency":"eur"}}}`
	}
	post := func(body, signature string) answer {
		return s.call("POST", "/v1/webhooks/stripe", body, "Stripe-Signature", signature)
	}
	good := payload("evt_1", "succeeded", "1299")
	for _, signature := range []string{
		"", "t=1,v1=00", signed(good, "whsec_other", time.Now()), signed(good, webhookSecret, time.Now().Add(-time.Hour)), signed(good+" ", webhookSecret, time.Now()),
	} {
		s.problem(post(good, signature), 400, "bad-signature", "Stripe-Signature")
	}
	s.problem(post("{}", signed("{}", webhookSecret, time.Now())), 400, "malformed")
	s.problem(post(strings.Repeat(" ", 65<<10), "x"), 413, "too-large")
	require.Equal(t, "processing", c.call("GET", "/v1/orders/"+id, nil).text("status"))

	wrong := payload("evt_0", "succeeded", "1")
	s.problem(post(wrong, signed(wrong, webhookSecret, time.Now())), 500, "contradiction")
	for _, outcome := range []string{"settled", "duplicate"} {
		a := post(good, signed(good, webhookSecret, time.Now()))
		require.Equal(t, 200, a.status, a.raw)
		require.Equal(t, outcome, a.text("outcome"))
	}
	require.Equal(t, "paid", c.call("GET", "/v1/orders/"+id, nil).text("status"))
	require.Equal(t, "order.paid", s.lastEvent(id).eventType)
}
