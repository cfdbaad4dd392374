package handlers_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func remarshal(t *testing.T, v any) string {
	t.Helper()
	encoded, err := json.Marshal(v)
	require.NoError(t, err)
	return string(encoded)
}

func visa() map[string]any { return map[string]any{"payment_method": "pm_card_visa"} }

func TestCheckoutReservesStockAndAppendsTheWholeCart(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	id := c.cart("moka-pot", 2, "filter-beans", 3)
	s.exec(`update products set price = 1300 where sku = 'filter-beans'`) // after it went into the cart

	a := c.call("POST", "/v1/carts/"+id+"/checkout", visa(), "X-Correlation-ID", "buy")
	require.Equal(t, 202, a.status, a.raw)
	require.Equal(t, "processing", a.text("status"))
	require.Equal(t, "buy", a.text("correlation_id"))
	require.Len(t, a.body, 4)
	e := s.lastEvent(id)
	require.Equal(t, "cart.checked_out", e.eventType)
	require.Equal(t, e.id, a.text("event_id"))
	require.JSONEq(t, `{"cart_id":"`+id+`","user_id":"`+c.id.String()+`","cart_version":4,"order_id":"`+a.text("order_id")+`","lines":[
		{"sku":"filter-beans","name":"Filter beans, 500 g","quantity":3,"unit_price":{"amount":1300,"currency":"EUR"}},
		{"sku":"moka-pot","name":"Moka pot, the last three","quantity":2,"unit_price":{"amount":3450,"currency":"EUR"}}
	],"total":{"amount":10800,"currency":"EUR"},"payment_method":"pm_card_visa"}`, remarshal(t, e.data))
	require.Equal(t, 2, value[int](s, `select reserved from products where sku = 'moka-pot'`))
	require.Equal(t, 3, value[int](s, `select reserved from products where sku = 'filter-beans'`))
	require.Equal(t, 10800, value[int](s, `select amount from orders`))
	require.Equal(t, e.id, value[uuid.UUID](s, `select checkout_event_id from orders`).String())
	require.JSONEq(t, remarshal(t, e.data["lines"]), value[string](s, `select lines::text from orders`))

	// It is final, whatever the catalogue does.
	s.exec(`update products set price = 1`)
	got := c.call("GET", "/v1/carts/"+id, nil)
	require.Equal(t, "checked_out", got.text("status"))
	require.Equal(t, a.text("order_id"), got.text("order_id"))
	require.Equal(t, 10800.0, got.at("total", "amount"))
	again := c.call("POST", "/v1/carts/"+id+"/checkout", visa())
	s.problem(again, 409, "cart-checked-out")
	require.Equal(t, a.text("order_id"), again.text("order_id"))
	s.problem(c.call("POST", "/v1/carts/"+id+"/items", map[string]any{"sku": "moka-pot", "quantity": 1}), 409, "cart-checked-out")
	s.problem(c.call("DELETE", "/v1/carts/"+id+"/items/moka-pot", nil), 409, "cart-checked-out")
	require.Equal(t, 4, s.events())
}

func TestCheckoutRefuses(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	s.problem(c.call("POST", "/v1/carts/"+c.cart()+"/checkout", visa()), 422, "cart-empty")

	id := c.cart("moka-pot", 4, "filter-beans", 1, "hand-grinder", 1)
	s.exec(`update products set stock = 0 where sku = 'hand-grinder'`)
	before := s.events()
	a := c.call("POST", "/v1/carts/"+id+"/checkout", visa())
	s.problem(a, 409, "out-of-stock", "/items/hand-grinder", "/items/moka-pot")
	require.Equal(t, []any{"hand-grinder", "moka-pot"}, a.body["skus"])
	for _, method := range []any{"", "pm card", "pm-card", "ä", 12, nil, string(make([]byte, 65))} {
		s.problem(c.call("POST", "/v1/carts/"+id+"/checkout", map[string]any{"payment_method": method}), 422, "validation", "/payment_method")
	}
	s.problem(c.call("POST", "/v1/carts/"+id+"/checkout", map[string]any{"payment_method": "pm_card_visa", "amount": 1}), 422, "validation", "/amount")
	s.exec(`update products set stock = 100, currency = 'USD' where sku = 'hand-grinder'`)
	s.exec(`update products set stock = 100 where sku = 'moka-pot'`)
	s.problem(c.call("POST", "/v1/carts/"+id+"/checkout", visa()), 422, "mixed-currencies")

	require.Equal(t, before, s.events())
	require.Zero(t, value[int](s, `select sum(reserved) from products`))
	require.Zero(t, value[int](s, `select count(*) from orders`))
	require.Equal(t, "open", c.call("GET", "/v1/carts/"+id, nil).text("status"))
}

func TestCheckoutSellsTheLastOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.exec(`update products set stock = 1 where sku = 'moka-pot'`)
	buyers, carts := make([]*customer, 10), make([]string, 10)
	for i := range buyers {
		buyers[i] = s.customer()
		carts[i] = buyers[i].cart("moka-pot", 1, "filter-beans", 1)
	}
	before, sold := s.events(), 0
	for _, a := range together(t, 10, func(i int) (answer, error) {
		return s.try(t.Context(), "POST", "/v1/carts/"+carts[i]+"/checkout", visa(), "Authorization", "Bearer "+buyers[i].token)
	}) {
		if a.status == 202 {
			sold++
			continue
		}
		s.problem(a, 409, "out-of-stock", "/items/moka-pot")
	}
	require.Equal(t, 1, sold)
	require.Equal(t, 1, value[int](s, `select count(*) from orders`))
	require.Equal(t, before+1, s.events())
	require.Equal(t, 1, value[int](s, `select reserved from products where sku = 'moka-pot'`))
	require.Equal(t, 1, value[int](s, `select reserved from products where sku = 'filter-beans'`))
}

func TestCheckoutsThatCrossDoNotDeadlock(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	buyers, carts := make([]*customer, 12), make([]string, 12)
	for i := range buyers {
		buyers[i] = s.customer()
		if i%2 == 0 {
			carts[i] = buyers[i].cart("paper-filters", 1, "espresso-beans", 1)
		} else {
			carts[i] = buyers[i].cart("espresso-beans", 1, "paper-filters", 1)
		}
	}
	for _, a := range together(t, 12, func(i int) (answer, error) {
		return s.try(t.Context(), "POST", "/v1/carts/"+carts[i]+"/checkout", visa(), "Authorization", "Bearer "+buyers[i].token)
	}) {
		require.Equal(t, 202, a.status, a.raw)
	}
	require.Equal(t, 24, value[int](s, `select sum(reserved) from products`))
}

func TestCheckoutOfOneCartAtTheSameTime(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	id := c.cart("filter-beans", 1)
	before, sold := s.events(), 0
	for _, a := range together(t, 10, func(i int) (answer, error) {
		// Half of them put more into the cart, which must not come behind the checkout.
		if i%2 == 1 {
			return s.try(t.Context(), "POST", "/v1/carts/"+id+"/items", map[string]any{"sku": "filter-beans", "quantity": 300}, "Authorization", "Bearer "+c.token)
		}
		return s.try(t.Context(), "POST", "/v1/carts/"+id+"/checkout", visa(), "Authorization", "Bearer "+c.token)
	}) {
		switch a.status {
		case 202:
			sold++
		case 200:
		case 422:
			s.problem(a, 422, "validation", "/quantity")
		default:
			s.problem(a, 409, "cart-checked-out")
		}
	}
	require.Equal(t, 1, sold)
	require.Equal(t, "cart.checked_out", s.lastEvent(id).eventType)
	require.True(t, value[bool](s, `select version = 2 + $2 and (select count(*) from outbox where key = $1::text) = version from carts where id = $1::uuid`, id, s.events()-before))
	require.True(t, value[bool](s, `select (o.lines->0->>'quantity')::int = i.quantity and p.reserved = i.quantity
		from orders o join cart_items i using (cart_id) join products p using (sku)`))
}

// What has begun is done, also when the client does not wait for the answer: its next try finds it.
func TestCheckoutOfAClientThatLeaves(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	id := c.cart("filter-beans", 1)
	tx, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select from carts for update`)
	require.NoError(t, err)
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = s.try(ctx, "POST", "/v1/carts/"+id+"/checkout", visa(), "Authorization", "Bearer "+c.token, key, "k")
	}()
	s.somebodyIsLockedOut()
	leave()
	<-gone
	require.NoError(t, tx.Rollback(t.Context()))
	require.Eventually(t, func() bool { return value[bool](s, `select exists (select from orders)`) }, 10*time.Second, 5*time.Millisecond)
	again := c.call("POST", "/v1/carts/"+id+"/checkout", visa(), key, "k")
	require.Equal(t, 202, again.status, again.raw)
	require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
}
