package main_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// buy signs a customer up and checks out, with the same Idempotency-Key again until there is an answer.
func buy(ctx context.Context, api string, n int) (order string, err error) {
	email, password := fmt.Sprintf("customer%d@example.com", n), "correct horse battery"
	if _, err := insist(ctx, "POST", api+"/v1/signup", map[string]any{"email": email, "password": password, "name": "C"}, "", fmt.Sprint("signup-", n)); err != nil {
		return "", err
	}
	session, err := insist(ctx, "POST", api+"/v1/sessions", map[string]any{"email": email, "password": password}, "", "")
	if err != nil {
		return "", err
	}
	bearer := "Bearer " + session.text("token")
	cart, err := insist(ctx, "POST", api+"/v1/carts", nil, bearer, "cart")
	if err != nil {
		return "", err
	}
	path := api + "/v1/carts/" + cart.text("cart_id")
	if _, err := insist(ctx, "POST", path+"/items", map[string]any{"sku": "espresso-beans", "quantity": 1}, bearer, "item"); err != nil {
		return "", err
	}
	checkout, err := insist(ctx, "POST", path+"/checkout", map[string]any{"payment_method": "pm_card_visa"}, bearer, "checkout")
	return checkout.text("order_id"), err
}

// insist repeats a request while it gets no answer, or one that says to come back.
func insist(ctx context.Context, method, url string, body any, bearer, key string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		a, err := call(ctx, method, url, body, "Authorization", bearer, "Idempotency-Key", key)
		if err == nil && a.status < 300 {
			return a, nil
		}
		if err == nil && a.status < 500 && a.header.Get("Retry-After") == "" {
			return a, fmt.Errorf("%s %s: %d %s", method, url, a.status, a.raw)
		}
		timer := time.NewTimer(20 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return a, fmt.Errorf("%s %s: no answer: %w (last: %w, %d)", method, url, ctx.Err(), err, a.status)
		case <-timer.C:
		}
	}
}

// freeAddr is an address that was free a moment ago, for a service that must come back at the same place.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	return addr
}
