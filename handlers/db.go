package handlers

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	// acquireTimeout is how long a request waits for a connection of the pool.
	acquireTimeout = 5 * time.Second
	// queryTimeout is above the server's own limits, so that those end a statement and not this its connection.
	queryTimeout = 10 * time.Second
)

// writing is how a writing transaction begins, and limit what it begins with: the limits hold behind a pooler too.
var writing = pgx.TxOptions{IsoLevel: pgx.ReadCommitted}

const limit = `SELECT set_config('lock_timeout', $1::text, true), set_config('statement_timeout', $2::text, true),
	set_config('idle_in_transaction_session_timeout', $3::text, true)`

// inTx runs fn in a writing transaction.
func inTx(ctx context.Context, conn *pgxpool.Conn, fn func(tx pgx.Tx) error) error {
	return outbox.InTxOptions(ctx, conn, writing, func(tx pgx.Tx) error {
		if _, err := outbox.Later(tx).Exec(ctx, limit, "3s", "5s", "10s"); err != nil {
			return err
		}
		return fn(tx)
	})
}

// withConn runs fn on a connection of the pool. A client that goes away gives up its place in the queue, but ends
// nothing that has begun: a cancelled query costs its connection, and the answer is worth keeping for the next try.
func (a *api) withConn(c echo.Context, fn func(ctx context.Context, conn *pgxpool.Conn) error) error {
	waiting, cancel := context.WithTimeout(c.Request().Context(), acquireTimeout)
	conn, err := a.pool.Acquire(waiting)
	cancel()
	if err != nil {
		return fmt.Errorf("get a connection: %w", err)
	}
	defer conn.Release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request().Context()), queryTimeout)
	defer cancel()
	return fn(ctx, conn)
}
