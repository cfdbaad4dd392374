package main

import (
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// A connection that a handler does not give back keeps no process from ending.
func TestStopDoesNotWaitForConnections(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), testdb.New(t))
	require.NoError(t, err)
	kept, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	t.Cleanup(kept.Release)
	stopped := make(chan struct{})
	go func() {
		(&service{log: slog.New(slog.DiscardHandler), pool: pool}).stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(time.Minute):
		t.Fatal("it waits for the connection")
	}
}
