package outbox

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// errOwned refuses a handler that would end a transaction it shares with others.
var errOwned = errors.New("outbox: the engine ends this transaction: a handler must not commit or roll it back")

// handlerTx is the transaction as a handler sees it: statements queued by Batch are sent before any that the handler
// sends itself, so that everything happens in the order in which it was asked for.
type handlerTx struct {
	pgx.Tx
	batch    *pgx.Batch
	appended []stored
}

// Batch returns a batch on which the handler of the present context can queue statements instead of sending them one
// by one: those of many events then travel in few round trips. They are sent, in order, before the transaction
// ends and before any statement the handler sends through its tx. Do not keep it beyond the call of the handler.
// An error of a queued statement counts as the error of the handler that queued it.
//
// It panics outside of a handler registered with Handle.
func Batch(ctx context.Context) *pgx.Batch {
	d := deliveryFrom(ctx)
	if d == nil || d.tx == nil {
		panic("outbox: Batch called outside of a handler registered with Handle")
	}
	return d.tx.batch
}

func newHandlerTx(tx pgx.Tx) *handlerTx { return &handlerTx{Tx: tx, batch: &pgx.Batch{}} }

// take empties the batch and returns what was in it. The batch itself stays the one that handlers were given.
func (t *handlerTx) take() *pgx.Batch {
	queued := *t.batch
	*t.batch = pgx.Batch{}
	return &queued
}

// flush sends what is queued.
func (t *handlerTx) flush(ctx context.Context) error {
	if t.batch.Len() == 0 {
		return nil
	}
	batch := t.take()
	results := t.Tx.SendBatch(ctx, batch)
	for _, q := range batch.QueuedQueries {
		var err error
		if q.Fn != nil {
			err = q.Fn(results)
		} else {
			_, err = results.Exec()
		}
		if err != nil {
			_ = results.Close() // the first error is the one that counts
			return err
		}
	}
	return results.Close()
}

func (t *handlerTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := t.flush(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return t.Tx.Exec(ctx, sql, args...)
}

func (t *handlerTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	return t.Tx.Query(ctx, sql, args...)
}

func (t *handlerTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := t.flush(ctx); err != nil {
		return failedRow{err}
	}
	return t.Tx.QueryRow(ctx, sql, args...)
}

func (t *handlerTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := t.flush(ctx); err != nil {
		return failedResults{err}
	}
	return t.Tx.SendBatch(ctx, b)
}

func (t *handlerTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource) (int64, error) {
	if err := t.flush(ctx); err != nil {
		return 0, err
	}
	return t.Tx.CopyFrom(ctx, table, columns, src)
}

// Begin opens a savepoint, which the handler may commit or roll back.
func (t *handlerTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	return t.Tx.Begin(ctx)
}

func (t *handlerTx) Commit(context.Context) error   { return errOwned }
func (t *handlerTx) Rollback(context.Context) error { return errOwned }

type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }

type failedResults struct{ err error }

func (r failedResults) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, r.err }
func (r failedResults) Query() (pgx.Rows, error)         { return nil, r.err }
func (r failedResults) QueryRow() pgx.Row                { return failedRow(r) }
func (r failedResults) Close() error                     { return r.err }
func (r failedResults) Tx() pgx.Tx                       { return nil }
