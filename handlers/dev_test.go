package handlers_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/mailsink"
	"github.com/pgoutbox/pgoutbox/internal/payments"
)

func TestDevSwitches(t *testing.T) {
	t.Parallel()
	sink, err := mailsink.Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, sink.Close(ctx))
	})
	var sandbox *payments.Sandbox
	s := newShop(t, func(cfg *handlers.Config) {
		sandbox = payments.NewSandbox(cfg.Pool)
		cfg.Dev = &handlers.DevTools{Mail: sink, Payments: sandbox}
	})
	require.JSONEq(t, `{"items":[],"next_cursor":null}`, s.call("GET", "/dev/mail", nil).raw)
	a := s.call("PUT", "/dev/mail/mode", map[string]any{"smtp_code": 451})
	require.Equal(t, 200, a.status, a.raw)
	require.JSONEq(t, `{"smtp_code":451}`, a.raw)
	require.Equal(t, 451, sink.Mode())
	for _, body := range []any{map[string]any{}, map[string]any{"smtp_code": 99}, map[string]any{"smtp_code": "451"}, map[string]any{"smtp_code": nil}} {
		s.problem(s.call("PUT", "/dev/mail/mode", body), 422, "validation", "/smtp_code")
	}

	require.JSONEq(t, `{"outage":true}`, s.call("PUT", "/dev/payments/mode", map[string]any{"outage": true}).raw)
	_, err = sandbox.Find(t.Context(), "x")
	var unavailable *payments.UnavailableError
	require.ErrorAs(t, err, &unavailable)
	require.Equal(t, 200, s.call("PUT", "/dev/payments/mode", map[string]any{"outage": false}).status)
	s.problem(s.call("PUT", "/dev/payments/mode", map[string]any{}), 422, "validation", "/outage")

	intent, err := sandbox.Create(t.Context(), payments.CreateParams{IdempotencyKey: "k", Amount: 1299, Currency: "EUR", Method: "pm_card_visa", OrderID: "o"})
	require.NoError(t, err)
	_, err = sandbox.Confirm(t.Context(), intent.ID)
	require.NoError(t, err)
	charges := s.call("GET", "/dev/payments/charges", nil)
	require.Len(t, charges.body["items"], 1, charges.raw)
	require.Contains(t, charges.raw, `"order_id":"o","amount":{"amount":1299,"currency":"EUR"}`)
}

func TestDevWithoutToolsHasNoRoutes(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(cfg *handlers.Config) { cfg.Dev = &handlers.DevTools{} })
	s.problem(s.call("GET", "/dev/mail", nil), 404, "not-found")
	s.problem(s.call("GET", "/dev/payments/charges", nil), 404, "not-found")
}
