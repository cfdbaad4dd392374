package handlers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// While the service is too far behind, nothing that writes is let in but what the provider has to say; to read goes on.
func TestOverloaded(t *testing.T) {
	t.Parallel()
	var cfg handlers.Config
	s := newShop(t, func(c *handlers.Config) {
		a, err := outbox.NewAdmission(outbox.NewOperator(c.Pool, nil, "", nil), time.Minute, c.Logger)
		require.NoError(t, err)
		c.Admission, c.StripeWebhookSecrets = a, []string{webhookSecret}
		cfg = *c
	})
	c := s.customer()
	status := func() string { return s.call("GET", "/readyz", nil).text("status") }
	require.Equal(t, "ready", status())

	s.exec(`update relay_stats set ahead_since = now() - interval '2 minutes', ahead_consumer = 'slow', ahead_at = now()`)
	require.Eventually(t, func() bool { return status() == "degraded" }, 20*time.Second, 10*time.Millisecond)
	a := s.call("GET", "/readyz", nil)
	require.Equal(t, 200, a.status)
	require.Regexp(t, `an event has waited for slow for 2m\d+s`, a.raw)

	before := value[int64](s, `select (select count(*) from users) + (select count(*) from outbox) + (select count(*) from carts)`)
	refused := 0
	for _, r := range handlers.NewAPI(cfg).Routes() {
		if !strings.HasPrefix(r.Path, "/v1/") || r.Method == "GET" || strings.Contains(r.Path, "webhooks") {
			continue
		}
		refused++
		s.exec(`update relay_stats set ahead_at = now()`)
		a := c.call(r.Method, r.Path, map[string]any{"email": "new@example.com", "password": "correct horse battery", "name": "New"}, "X-Correlation-ID", "turned-away")
		s.problem(a, 503, "overloaded")
		require.Equal(t, "5", a.header.Get("Retry-After"))
	}
	require.GreaterOrEqual(t, refused, 7)
	require.Equal(t, "WARN", s.log.with(t, `"turned-away"`)["level"], "it is no fault")
	require.Equal(t, before, value[int64](s, `select (select count(*) from users) + (select count(*) from outbox) + (select count(*) from carts)`))
	require.Equal(t, 200, c.call("GET", "/v1/account", nil).status)
	s.problem(s.call("POST", "/v1/webhooks/stripe", "{}", "Stripe-Signature", "x"), 400, "bad-signature", "Stripe-Signature")

	s.exec(`update relay_stats set ahead_since = null, ahead_consumer = ''`)
	require.Eventually(t, func() bool { return status() == "ready" }, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, 201, c.call("POST", "/v1/carts", nil).status)
}
