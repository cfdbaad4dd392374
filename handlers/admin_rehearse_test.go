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

	require.Equal(t, []any{map[string]any{"op": "add", "path": "/user_id", "to": "u1"}}, got["diff"])
	for body, pointer := range map[string]string{
		`{"data":{"user_id":7},"reason":"r"}`: "/data/user_id", `{"data":{"user_id":"u1","~/":1},"reason":"r"}`: "/data/~0~1", `{"data":[],"reason":"r"}`: "/data",
	} {
		status, refused := o.ask("POST", "/admin/dlq/1/replay", body)
		require.Equal(t, 422, status, refused)
		require.Equal(t, pointer, refused["errors"].([]any)[0].(map[string]any)["pointer"])
	}

	var left int
	require.NoError(t, o.pool.QueryRow(t.Context(), `select count(*) from plans`).Scan(&left))
	require.Zero(t, left)
	status, replayed := o.ask("POST", "/admin/dlq/1/replay", `{"data":{"user_id":"u1"},"reason":"it was u1"}`)
	require.Equal(t, 202, status, replayed)
	require.Equal(t, true, replayed["checked"])
	require.Len(t, replayed["diff"], 1)
	status, letter := o.ask("GET", "/admin/dlq/1", "")
	require.Equal(t, 200, status)
	edit := letter["edit"].(map[string]any)
	require.Equal(t, [2]any{"anna", "it was u1"}, [2]any{edit["actor"], edit["reason"]})
	status, audit := o.ask("GET", "/admin/audit?action=rehearse&target=dead+letter+1", "")
	require.Equal(t, 200, status)
	require.Len(t, audit["items"], 2)
}
