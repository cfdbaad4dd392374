package outboxtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers/outboxtest"
)

// In a test: append, settle, and look at what the consumers did.
func ExampleSettle() {
	_ = func(t *testing.T, pool *pgxpool.Pool, consumers *outbox.Registry) {
		require.NoError(t, outbox.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := outbox.Append(t.Context(), tx, outbox.Event{Type: "user.signed_up", Key: "user-1", Data: map[string]string{"name": "Ada"}})
			return err
		}))
		report := outboxtest.Settle(t, pool, consumers, outboxtest.MaxAttempts(3))
		require.Empty(t, report.Dead)

		var welcomed bool
		require.NoError(t, pool.QueryRow(context.Background(), `SELECT welcomed FROM users WHERE id = 'user-1'`).Scan(&welcomed))
		require.True(t, welcomed)
	}
}
