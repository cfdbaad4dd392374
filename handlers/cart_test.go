package handlers_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func TestProductsArePaged(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.exec(`update products set reserved = 1 where sku = 'moka-pot'`)
	all := s.call("GET", "/v1/products", nil)
	require.Equal(t, 200, all.status, all.raw)
	require.Len(t, all.body["items"], 5)
	require.Nil(t, all.body["next_cursor"])
	require.Contains(t, all.raw, `{"sku":"moka-pot","name":"Moka pot, the last three","price":{"amount":3450,"currency":"EUR"},"available":2}`)

	seen := []any{}
	for path := "/v1/products?limit=2"; ; {
		a := s.call("GET", path, nil)
		require.Equal(t, 200, a.status, a.raw)
		seen = append(seen, a.body["items"].([]any)...)
		if a.body["next_cursor"] == nil {
			break
		}
		path = "/v1/products?limit=2&cursor=" + a.text("next_cursor")
	}
	require.Equal(t, all.body["items"], seen)
	for query, pointer := range map[string]string{
		"limit=0": "?limit", "limit=101": "?limit", "limit=x": "?limit", "limit=": "?limit", "limit=1&limit=2": "?limit",
		"cursor=%00": "?cursor", "cursor=!!": "?cursor", "cursor=QQ": "?cursor", "sort=price": "?sort",
	} {
		s.problem(s.call("GET", "/v1/products?"+query, nil), 422, "validation", pointer)
	}
}

func TestCartChangesAreVersionedEvents(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	created := c.call("POST", "/v1/carts", nil, "X-Correlation-ID", "walk")
	require.Equal(t, 201, created.status, created.raw)
	id := created.text("cart_id")
	path := "/v1/carts/" + id
	e := s.lastEvent(id)
	require.Equal(t, "cart.created", e.eventType)
	require.Equal(t, e.id, created.text("event_id"))
	require.Equal(t, "walk", e.correlationID)
	require.Equal(t, map[string]any{"cart_id": id, "user_id": c.id.String(), "cart_version": 1.0}, e.data)

	added := c.call("POST", path+"/items", map[string]any{"sku": "filter-beans", "quantity": 2})
	require.Equal(t, 200, added.status, added.raw)
	added = c.call("POST", path+"/items", map[string]any{"sku": "filter-beans", "quantity": 3})
	require.Equal(t, 200, added.status, added.raw)
	require.JSONEq(t, `[{"sku":"filter-beans","name":"Filter beans, 500 g","quantity":5,"unit_price":{"amount":1299,"currency":"EUR"}}]`,
		remarshal(t, added.body["items"]))
	e = s.lastEvent(id)
	require.Equal(t, "cart.item_added", e.eventType)
	require.Equal(t, map[string]any{
		"cart_id": id, "user_id": c.id.String(), "cart_version": 3.0, "line": map[string]any{
			"sku": "filter-beans", "name": "Filter beans, 500 g", "quantity": 3.0, "unit_price": map[string]any{"amount": 1299.0, "currency": "EUR"},
		},
	}, e.data)

	s.problem(c.call("DELETE", path+"/items/moka-pot", nil), 404, "not-found")
	s.problem(c.call("DELETE", path+"/items/%00", nil), 404, "not-found")
	s.problem(c.call("DELETE", path+"/items/%ff", nil), 404, "not-found")
	require.Equal(t, 200, c.call("POST", path+"/items", map[string]any{"sku": "moka-pot", "quantity": 1}).status)
	removed := c.call("DELETE", path+"/items/filter-beans", nil)
	require.Equal(t, 200, removed.status, removed.raw)
	e = s.lastEvent(id)
	require.Equal(t, "cart.item_removed", e.eventType)
	require.Equal(t, 5.0, e.data["cart_version"])
	require.Equal(t, 5.0, e.data["line"].(map[string]any)["quantity"])

	got := c.call("GET", path, nil)
	require.Equal(t, 200, got.status, got.raw)
	require.Equal(t, "open", got.text("status"))
	require.Equal(t, 5.0, got.body["cart_version"])
	require.Equal(t, map[string]any{"amount": 3450.0, "currency": "EUR"}, got.body["total"])
	require.Len(t, got.body["items"], 1)
	require.Equal(t, []int32{1, 2, 3, 4, 5}, value[[]int32](s, `select array_agg((data->>'cart_version')::int order by seq) from outbox where key = $1`, id))
}

func TestCartVersionsHaveNoGapsUnderConcurrency(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	id := c.cart()
	for _, a := range together(t, 12, func(i int) (answer, error) {
		return s.try(t.Context(), "POST", "/v1/carts/"+id+"/items", map[string]any{"sku": "espresso-beans", "quantity": i + 1}, "Authorization", "Bearer "+c.token)
	}) {
		require.Equal(t, 200, a.status, a.raw)
	}
	require.Equal(t, 78, value[int](s, `select quantity from cart_items`))
	require.True(t, value[bool](s, `select array_agg((data->>'cart_version')::int order by seq) = array(select generate_series(1, 13)) from outbox where key = $1`, id))
}

func TestCartOfSomebodyElseDoesNotExist(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	id := s.customer().cart("moka-pot", 1)
	before := s.events()
	c := s.customer()
	for _, cart := range []string{id, uuid.NewString(), "not-an-id", "%00", "{" + id + "}"} {
		path := "/v1/carts/" + cart
		s.problem(c.call("GET", path, nil), 404, "not-found")
		s.problem(c.call("POST", path+"/items", map[string]any{"sku": "moka-pot", "quantity": 1}), 404, "not-found")
		s.problem(c.call("DELETE", path+"/items/moka-pot", nil), 404, "not-found")
		s.problem(c.call("POST", path+"/checkout", map[string]any{"payment_method": "pm_card_visa"}), 404, "not-found")
	}
	require.Equal(t, before, s.events())
}

func TestCartRefusesItems(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	id := c.cart("espresso-beans", 600)
	path := "/v1/carts/" + id + "/items"
	before := s.events()
	for _, r := range []struct {
		body    any
		pointer string
	}{
		{map[string]any{"sku": "unknown", "quantity": 1}, "/sku"},
		{map[string]any{"sku": "Not A SKU", "quantity": 1}, "/sku"},
		{map[string]any{"quantity": 1}, "/sku"},
		{map[string]any{"sku": "moka-pot"}, "/quantity"},
		{map[string]any{"sku": "moka-pot", "quantity": 0}, "/quantity"},
		{map[string]any{"sku": "moka-pot", "quantity": -1}, "/quantity"},
		{map[string]any{"sku": "moka-pot", "quantity": 1001}, "/quantity"},
		{map[string]any{"sku": "moka-pot", "quantity": 1.5}, "/quantity"},
		{map[string]any{"sku": "moka-pot", "quantity": "1"}, "/quantity"},
		{`{"sku":"moka-pot","quantity":99999999999999999999}`, "/quantity"},
		{`{"sku":"moka-pot","quantity":1e2}`, "/quantity"},
		{map[string]any{"sku": "espresso-beans", "quantity": 401}, "/quantity"},
		{map[string]any{"sku": "moka-pot", "quantity": 1, "price": 1}, "/price"},
		{map[string]any{"sku": "moka-pot", "quantity": 1, "unit_price": map[string]any{"amount": 1}}, "/unit_price"},
		{map[string]any{"SKU": "moka-pot", "quantity": 1}, "/SKU"},
	} {
		s.problem(c.call("POST", path, r.body), 422, "validation", r.pointer)
	}
	require.Equal(t, before, s.events())
	require.Equal(t, 200, c.call("POST", path, map[string]any{"sku": "espresso-beans", "quantity": 400}).status)
}

func TestCartHoldsAHundredProducts(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	id := c.cart()
	s.exec(`insert into products (sku, name, price, stock) select 'p-' || i, 'Product', 1, 10 from generate_series(1, 101) i`)
	s.exec(`insert into cart_items (cart_id, sku, quantity) select $1, 'p-' || i, 1 from generate_series(1, 99) i`, id)
	path := "/v1/carts/" + id + "/items"
	require.Equal(t, 200, c.call("POST", path, map[string]any{"sku": "p-100", "quantity": 1}).status)
	s.problem(c.call("POST", path, map[string]any{"sku": "p-101", "quantity": 1}), 422, "validation", "/sku")
	require.Equal(t, 200, c.call("POST", path, map[string]any{"sku": "p-100", "quantity": 1}).status)
	a := c.call("POST", "/v1/carts/"+id+"/checkout", map[string]any{"payment_method": "pm_card_visa"})
	require.Equal(t, 202, a.status, a.raw)
	require.Equal(t, 101, value[int](s, `select sum(reserved) from products`))
	require.Equal(t, 101, value[int](s, `select amount from orders`), fmt.Sprint(a.raw))
}
