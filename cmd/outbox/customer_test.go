package main_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// customer is signed up and logged in, and has a trial.
type customer struct {
	t      *testing.T
	p      *process
	bearer string
}

func newCustomer(t *testing.T, p *process, email string) *customer {
	t.Helper()
	credentials := map[string]any{"email": email, "password": "correct horse battery", "name": "A customer"}
	signup := p.call("POST", "/v1/signup", credentials)
	require.Equal(t, 201, signup.status, signup.raw)
	delete(credentials, "name")
	session := p.call("POST", "/v1/sessions", credentials)
	require.Equal(t, 201, session.status, session.raw)
	c := &customer{t, p, "Bearer " + session.text("token")}
	account := p.call("GET", "/v1/account", nil, "Authorization", c.bearer, "Prefer", "wait=30") // a relay may have to be replaced
	require.Equal(t, "trialing", account.text("plan", "status"), account.raw)
	return c
}

// checkout buys one of sku and returns the order's id. The headers are those of the checkout itself.
func (c *customer) checkout(method, sku string, header ...string) string {
	c.t.Helper()
	cart := c.p.call("POST", "/v1/carts", nil, "Authorization", c.bearer)
	require.Equal(c.t, 201, cart.status, cart.raw)
	path := "/v1/carts/" + cart.text("cart_id")
	added := c.p.call("POST", path+"/items", map[string]any{"sku": sku, "quantity": 1}, "Authorization", c.bearer)
	require.Less(c.t, added.status, 300, added.raw)
	checkout := c.p.call("POST", path+"/checkout", map[string]any{"payment_method": method},
		append(header, "Authorization", c.bearer)...)
	require.Equal(c.t, 202, checkout.status, checkout.raw)
	return checkout.text("order_id")
}

func (c *customer) order(id string) string {
	c.t.Helper()
	return c.p.call("GET", "/v1/orders/"+id, nil, "Authorization", c.bearer, "Prefer", "wait=5").text("status")
}
