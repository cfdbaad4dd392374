package outbox

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// pipelined is a transaction of the engine that travels in as few round trips as there are answers to wait for: its
// begin with its first reads, its last writes with its commit. Each statement has a snapshot of its own all the same.
type pipelined struct {
	pgx.Tx
	conn  *pgxpool.Conn
	ended bool
}

// pipeline begins a transaction and sends what first queues with it. The caller ends it, whatever happened.
func (e *Engine) pipeline(ctx context.Context, first func(*pgx.Batch)) (*pipelined, error) {
	return e.pipelineFor(ctx, 30*time.Second, 10*time.Second, first)
}

// pipelineFor is pipeline for a transaction whose statements, and waits between them, may take so long.
func (e *Engine) pipelineFor(ctx context.Context, statement, idle time.Duration, first func(*pgx.Batch)) (*pipelined, error) {
	conn, err := e.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return pipelineOn(ctx, conn, "begin isolation level read committed", statement, idle, first)
}

// pipelineOn is pipelineFor on a connection, which it gives back when it fails.
func pipelineOn(ctx context.Context, conn *pgxpool.Conn, begin string, statement, idle time.Duration, first func(*pgx.Batch)) (*pipelined, error) {
	encodeUUIDs(conn.Conn())
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{BeginQuery: begin})
	b.Queue(outboxdb.EngineBounds, milliseconds(statement), milliseconds(idle))
	first(b)
	results := conn.SendBatch(ctx, b)
	p := &pipelined{Tx: results.Tx(), conn: conn}
	if err := results.Close(); err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) + "ms" }

// commits says that a batch that held the commit went through.
func (p *pipelined) commits() { p.ended = true }

// commitLater commits without waiting for the disk: see EngineCommitsLater.
func (p *pipelined) commitLater(ctx context.Context) error {
	b := &pgx.Batch{}
	b.Queue(outboxdb.EngineCommitsLater)
	b.Queue("commit")
	if err := p.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	p.commits()
	return nil
}

// end rolls back what is not committed and gives the connection back.
func (p *pipelined) end() {
	if !p.ended && !p.conn.Conn().IsClosed() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.Rollback(ctx) // the pool closes a connection that is still in a transaction
	}
	p.conn.Release()
}

// queueRow queues a query of one row and puts that, once it is sent, into dst, field by field.
func queueRow[T any](b *pgx.Batch, dst *T, sql string, args ...any) {
	b.Queue(sql, args...).Query(func(rows pgx.Rows) (err error) {
		*dst, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[T])
		return err
	})
}

// queueDB lets the generated queries that return nothing be queued instead of sent.
type queueDB struct {
	outboxdb.DBTX
	batch *pgx.Batch
}

func (q queueDB) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	q.batch.Queue(sql, args...)
	return pgconn.CommandTag{}, nil
}
