package handlers

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"
)

const (
	// acquireTimeout is how long a request waits for a connection of the pool.
	acquireTimeout = 5 * time.Second
	// queryTimeout is above the server's own limits, so that those end a statement and not this its connection.
	queryTimeout = 10 * time.Second
)

// writing is how a writing transaction begins, in one round trip. The limits hold behind a pooler too.
var writing = pgx.TxOptions{BeginQuery: `BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '3s';
	SET LOCAL statement_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '10s'`}

// beginner begins writing transactions, for outbox.InTx.
type beginner struct{ conn *pgxpool.Conn }

func (b beginner) Begin(ctx context.Context) (pgx.Tx, error) { return b.conn.BeginTx(ctx, writing) }

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
