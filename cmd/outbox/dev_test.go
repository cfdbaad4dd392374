package main_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// One customer's way, with a kill -9 after each acknowledged step.
func TestDevKilledBetweenSignupAndCheckout(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	p := startDev(t, dir)
	require.Equal(t, 200, p.call("GET", "/readyz", nil).status)

	signup := p.call("POST", "/v1/signup", map[string]any{"email": "ada@example.com", "password": "correct horse battery", "name": "Ada"},
		"X-Correlation-ID", "walk-1", "Idempotency-Key", "signup-1")
	require.Equal(t, 201, signup.status, signup.raw)
	require.Equal(t, "setting_up", signup.text("status"))
	require.Equal(t, "walk-1", signup.text("correlation_id"))
	p.kill()

	p = startDev(t, dir)
	again := p.call("POST", "/v1/signup", map[string]any{"email": "ada@example.com", "password": "correct horse battery", "name": "Ada"},
		"Idempotency-Key", "signup-1")
	require.Equal(t, 201, again.status, again.raw)
	require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
	require.Equal(t, signup.text("user_id"), again.text("user_id"))
	session := p.call("POST", "/v1/sessions", map[string]any{"email": "ada@example.com", "password": "correct horse battery"})
	require.Equal(t, 201, session.status, session.raw)
	bearer := "Bearer " + session.text("token")
	p.until("the trial began", func() bool {
		return p.call("GET", "/v1/account", nil, "Authorization", bearer, "Prefer", "wait=5").text("plan", "status") == "trialing"
	})
	p.until("the welcome mail arrived", func() bool { return len(p.mails("welcome")) == 1 })

	cart := p.call("POST", "/v1/carts", nil, "Authorization", bearer)
	require.Equal(t, 201, cart.status, cart.raw)
	added := p.call("POST", "/v1/carts/"+cart.text("cart_id")+"/items", map[string]any{"sku": "filter-beans", "quantity": 2}, "Authorization", bearer)
	require.Less(t, added.status, 300, added.raw)
	checkout := p.call("POST", "/v1/carts/"+cart.text("cart_id")+"/checkout", map[string]any{"payment_method": "pm_card_visa"},
		"Authorization", bearer, "X-Correlation-ID", "walk-2")
	require.Equal(t, 202, checkout.status, checkout.raw)
	p.kill()

	p = startDev(t, dir)
	p.until("the order is paid", func() bool {
		return p.call("GET", "/v1/orders/"+checkout.text("order_id"), nil, "Authorization", bearer, "Prefer", "wait=5").text("status") == "paid"
	})
	p.until("the receipt arrived", func() bool { return len(p.mails("receipt")) == 1 })
	charges := p.call("GET", "/dev/payments/charges", nil)
	require.Len(t, charges.body["items"], 1, charges.raw)
	pool := p.pool()
	p.until("the stock is taken", func() bool {
		var taken bool
		require.NoError(t, pool.QueryRow(t.Context(), `select stock = 99998 and reserved = 0 from products where sku = 'filter-beans'`).Scan(&taken))
		return taken
	})
	trace := p.call("GET", "/admin/trace/walk-2", nil)
	require.Equal(t, 200, trace.status, trace.raw)
	require.Contains(t, trace.raw, "order.paid")
	p.check()
}

func TestDevDeclinedCardIsAnAnswer(t *testing.T) {
	t.Parallel()
	p := startDev(t, dataDir(t))
	c := newCustomer(t, p, "grace@example.com")
	order := c.checkout("pm_card_chargeDeclined", "hand-grinder")
	p.until("the order failed", func() bool { return c.order(order) == "payment_failed" })
	require.Empty(t, p.call("GET", "/dev/payments/charges", nil).body["items"])
	require.Empty(t, p.call("GET", "/admin/dlq", nil).body["items"])
}

func TestDevRefusingMailDelaysMailOnly(t *testing.T) {
	t.Parallel()
	p := startDev(t, dataDir(t), "OUTBOX_RETRY_BASE=100ms", "OUTBOX_RETRY_MAX=1s")
	require.Equal(t, 200, p.call("PUT", "/dev/mail/mode", map[string]any{"smtp_code": 451}).status)
	c := newCustomer(t, p, "edsger@example.com")
	order := c.checkout("pm_card_visa", "paper-filters")
	p.until("the order is paid", func() bool { return c.order(order) == "paid" })
	pool := p.pool()
	p.until("mails were tried again", func() bool {
		var n int
		require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from delivery_log where outcome = 'failed' and attempt > 1`).Scan(&n))
		return n > 0
	})
	require.Empty(t, p.mails(""))
	require.Equal(t, 200, p.call("PUT", "/dev/mail/mode", map[string]any{"smtp_code": 250}).status)
	p.until("both mails arrived", func() bool { return len(p.mails("welcome")) == 1 && len(p.mails("receipt")) == 1 })
}

func TestDevPoisonEventIsParkedAndReplayed(t *testing.T) {
	t.Parallel()
	p := startDev(t, dataDir(t), "OUTBOX_MAX_ATTEMPTS=3", "OUTBOX_RETRY_BASE=100ms")
	pool := p.pool()
	_, err := pool.Exec(t.Context(), `select outbox_append('user.signed_up', 'nobody', '{"user_id":"not-a-uuid"}')`)
	require.NoError(t, err)
	newCustomer(t, p, "barbara@example.com") // goes on unhindered
	var letters []any
	p.until("one dead letter for each consumer", func() bool {
		letters, _ = p.call("GET", "/admin/dlq?state=dead&type=user.signed_up", nil).body["items"].([]any)
		return len(letters) == 2
	})
	for _, l := range letters {
		id := int64(l.(map[string]any)["id"].(float64))
		path := "/admin/dlq/" + strconv.FormatInt(id, 10)
		letter := p.call("GET", path, nil)
		require.Len(t, letter.body["errors"], 3, letter.raw)
		require.Equal(t, 202, p.call("POST", path+"/replay", map[string]any{"reason": "to see it fail"}).status)
		p.until("it came back with its history", func() bool {
			letter := p.call("GET", path, nil)
			errors, _ := letter.body["errors"].([]any)
			return letter.text("state") == "dead" && len(errors) == 6
		})
		var user string
		require.NoError(t, pool.QueryRow(t.Context(), `select id from users where email = 'barbara@example.com'`).Scan(&user))
		_, err := pool.Exec(t.Context(), `delete from subscriptions`)
		require.NoError(t, err)
		repaired := p.call("POST", path+"/replay", map[string]any{"data": map[string]any{"user_id": user, "plan": "trial"}, "reason": "the right user"})
		require.Equal(t, 202, repaired.status, repaired.raw)
		p.until("the repaired one succeeded", func() bool { return p.call("GET", path, nil).text("state") == "replayed" })
	}
	p.check()
}
