package handlers_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// A process that runs the consumer answers what a replay would do.
func TestAdminRehearses(t *testing.T) {
	t.Parallel()
	type signup struct {
		UserID string `json:"user_id"`
	}
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "billing", func(ctx context.Context, tx pgx.Tx, e outbox.Received[signup]) error {
		if e.Data.UserID == "" {
			return errors.New("nobody")
		}
		_, err := tx.Exec(ctx, `insert into plans values ($1)`, e.Data.UserID)
		return err
	}, outbox.On("user.signed_up"))
	o := newOffice(t, map[string]string{operatorToken: "anna"}, reg)
	_, err := o.pool.Exec(t.Context(), `create table plans (user_id text primary key)`)
	require.NoError(t, err)
	o.deadLetter(`{}`)

	status, got := o.ask("POST", "/admin/dlq/1/rehearse", "")
	require.Equal(t, 200, status, got)
	require.Equal(t, "fails", got["outcome"])
	require.Equal(t, "nobody", got["error"])
	status, got = o.ask("POST", "/admin/dlq/1/rehearse", `{"data":{"user_id":"u1"},"reason":"would that do?"}`)
	require.Equal(t, 200, status, got)
	require.Equal(t, "succeeds", got["outcome"], got)
	require.Equal(t, []any{map[string]any{"table": "plans", "operation": "insert", "after": map[string]any{"user_id": "u1"}}}, got["changes"])

	var left int
	require.NoError(t, o.pool.QueryRow(t.Context(), `select count(*) from plans`).Scan(&left))
	require.Zero(t, left)
	status, audit := o.ask("GET", "/admin/audit?action=rehearse&target=dead+letter+1", "")
	require.Equal(t, 200, status)
	require.Len(t, audit["items"], 2)
}
