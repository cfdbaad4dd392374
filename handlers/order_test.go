package handlers_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func (c *customer) order() string {
	c.t.Helper()
	a := c.call("POST", "/v1/carts/"+c.cart("filter-beans", 1)+"/checkout", visa())
	require.Equal(c.t, 202, a.status, a.raw)
	return a.text("order_id")
}

func TestOrdersArePaged(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c, other := s.customer(), s.customer()
	require.JSONEq(t, `{"items":[],"next_cursor":null}`, c.call("GET", "/v1/orders", nil).raw)
	other.order()
	newestFirst := []string{}
	for range 5 {
		newestFirst = append([]string{c.order()}, newestFirst...)
	}
	s.exec(`update orders set created_at = '2026-01-01 00:00:00.123456+00'`) // the id decides among equals
	seen := []string{}
	for path := "/v1/orders?limit=2"; ; {
		a := c.call("GET", path, nil)
		require.Equal(t, 200, a.status, a.raw)
		for _, item := range a.body["items"].([]any) {
			seen = append(seen, item.(map[string]any)["order_id"].(string))
		}
		if a.body["next_cursor"] == nil {
			break
		}
		path = "/v1/orders?limit=2&cursor=" + a.text("next_cursor")
	}
	require.Equal(t, newestFirst, seen)
	for query, pointer := range map[string]string{
		"limit=0": "?limit", "limit=101": "?limit", "limit=-1": "?limit", "limit=1e1": "?limit", "cursor=x": "?cursor", "cursor=%00": "?cursor",
		"cursor=________________________________": "?cursor", "status=paid": "?status",
	} {
		s.problem(c.call("GET", "/v1/orders?"+query, nil), 422, "validation", pointer)
	}
}

func TestOrderWaitsForItsEnd(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	id := c.order()
	a := c.call("GET", "/v1/orders/"+id, nil)
	require.Equal(t, 200, a.status, a.raw)
	require.Equal(t, "processing", a.text("status"))
	require.Equal(t, 1299.0, a.at("total", "amount"))
	require.Len(t, a.body["lines"], 1)

	waiting := make(chan answer, 1)
	go func() {
		a, _ := s.try(t.Context(), "GET", "/v1/orders/"+id, nil, "Authorization", "Bearer "+c.token, "Prefer", "wait=20")
		waiting <- a
	}()
	s.exec(`update orders set status = 'payment_failed', failure_reason = 'card_declined', settled_at = now()`)
	select {
	case a := <-waiting:
		require.Equal(t, "payment_failed", a.text("status"), a.raw)
		require.Equal(t, "card_declined", a.text("failure_reason"))
		require.Equal(t, "wait=20", a.header.Get("Preference-Applied"))
	case <-time.After(10 * time.Second):
		t.Fatal("the answer did not come with the end")
	}
	stranger := s.customer()
	for _, unknown := range []string{id, uuid.NewString(), "x"} {
		s.problem(stranger.call("GET", "/v1/orders/"+unknown, nil, "Prefer", "wait=30"), 404, "not-found")
	}
}
