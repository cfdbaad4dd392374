package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
)

// producerTx is the transaction that InTx gives to its func. It begins with the first statement, in one round trip, and
// what nobody waits for, events and what is left to Later, travels with the statement that comes next or with the commit: so a
// producer has no more round trips than answers it looks at, and holds the keys' locks for no longer than it must.
// Everything happens in the order in which it was asked for.
type producerTx struct {
	pgx.Tx  // nil until it has begun
	conn    *pgx.Conn
	options pgx.TxOptions
	kept    []kept
	nested  bool // a savepoint was opened: from then on everything is written at once, inside or outside of it
}

// kept are events to be written into a schema, or a statement.
type kept struct {
	schema Schema
	rows   []stored
	sql    string
	args   []any
}

// keep takes events to be written before the next statement, or with the commit. It reports whether it has.
func (t *producerTx) keep(s Schema, rows []stored) bool {
	if t.nested {
		return false
	}
	// Those that follow one another are written together: their keys' locks are then taken in one order.
	if n := len(t.kept); n > 0 && len(t.kept[n-1].rows) > 0 && t.kept[n-1].schema == s {
		t.kept[n-1].rows = append(t.kept[n-1].rows, rows...)
	} else {
		t.kept = append(t.kept, kept{schema: s, rows: rows})
	}
	return true
}

// later takes a statement, like keep.
func (t *producerTx) later(sql string, args []any) bool {
	if t.nested || !queueable(args) {
		return false
	}
	t.kept = append(t.kept, kept{sql: sql, args: args})
	return true
}

// queueable reports whether a statement can be queued: one with arguments, and no options of pgx among them, is a single one.
func queueable(args []any) bool {
	if len(args) == 0 {
		return false
	}
	switch args[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID, pgx.QueryRewriter:
		return false
	}
	return true
}

// send begins the transaction if it has not begun, writes what is kept and then queues sql, if that is not empty, whose result is the
// next one to be read. The caller closes the results, unless there is an error.
func (t *producerTx) send(ctx context.Context, sql string, args ...any) (pgx.BatchResults, error) {
	batch := &pgx.Batch{}
	if t.Tx == nil {
		batch.BeginTx(t.options)
	}
	var writes []*pgx.QueuedQuery // of events
	for _, k := range t.kept {
		if len(k.rows) == 0 {
			batch.Queue(k.sql, k.args...)
			continue
		}
		first := batch.Len()
		k.schema.queueWrite(batch, k.rows)
		writes = append(writes, batch.QueuedQueries[first:]...)
	}
	t.kept = nil
	before := batch.QueuedQueries
	if sql != "" {
		batch.Queue(sql, args...)
	}
	results := t.conn.SendBatch(ctx, batch)
	if t.Tx == nil {
		t.Tx = results.Tx()
	}
	for _, q := range before {
		if _, err := results.Exec(); err != nil {
			_ = results.Close() // the first error is the one that counts
			if slices.Contains(writes, q) && sqlState(err) != "" {
				err = fmt.Errorf("outbox: append: %w", err)
			}
			return nil, err
		}
	}
	return results, nil
}

// appends reports whether events are kept.
func (t *producerTx) appends() bool {
	return slices.ContainsFunc(t.kept, func(k kept) bool { return len(k.rows) > 0 })
}

// with is send before the commit.
func (t *producerTx) with(ctx context.Context, sql string, args ...any) (pgx.BatchResults, error) {
	appends := t.appends()
	if appends {
		failpoint.At(failpoint.ProducerAppendBefore)
	}
	results, err := t.send(ctx, sql, args...)
	if appends && err == nil {
		failpoint.At(failpoint.ProducerAppendAfter)
	}
	return results, err
}

// open begins the transaction if it has not begun, and writes what is kept.
func (t *producerTx) open(ctx context.Context) error {
	if t.idle() {
		return nil
	}
	results, err := t.with(ctx, "")
	if err != nil {
		return err
	}
	return results.Close()
}

// idle reports whether nothing is to be sent before the next statement.
func (t *producerTx) idle() bool { return t.Tx != nil && len(t.kept) == 0 }

// commit ends the transaction. What is kept travels with it.
func (t *producerTx) commit(ctx context.Context) error {
	failpoint.At(failpoint.ProducerCommitBefore)
	switch {
	case len(t.kept) > 0:
		results, err := t.send(ctx, cmp.Or(t.options.CommitQuery, "commit"))
		if err != nil {
			return err
		}
		return results.Close()
	case t.Tx != nil:
		return t.Tx.Commit(ctx)
	}
	return nil
}

func (t *producerTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if t.idle() || !queueable(args) {
		if err := t.open(ctx); err != nil {
			return pgconn.CommandTag{}, err
		}
		return t.Tx.Exec(ctx, sql, args...)
	}
	results, err := t.with(ctx, sql, args...)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := results.Exec()
	if closed := results.Close(); err == nil {
		err = closed
	}
	return tag, err
}

func (t *producerTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if t.idle() || !queueable(args) {
		if err := t.open(ctx); err != nil {
			return failedRow{err}
		}
		return t.Tx.QueryRow(ctx, sql, args...)
	}
	results, err := t.with(ctx, sql, args...)
	if err != nil {
		return failedRow{err}
	}
	return firstRow{results}
}

// firstRow is the row of a statement that was sent with what came before it.
type firstRow struct{ results pgx.BatchResults }

func (r firstRow) Scan(dest ...any) error {
	err := r.results.QueryRow().Scan(dest...)
	if closed := r.results.Close(); err == nil {
		err = closed
	}
	return err
}

func (t *producerTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := t.open(ctx); err != nil {
		return nil, err
	}
	return t.Tx.Query(ctx, sql, args...)
}

func (t *producerTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := t.open(ctx); err != nil {
		return failedResults{err}
	}
	return t.Tx.SendBatch(ctx, b)
}

func (t *producerTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource) (int64, error) {
	if err := t.open(ctx); err != nil {
		return 0, err
	}
	return t.Tx.CopyFrom(ctx, table, columns, src)
}

func (t *producerTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := t.open(ctx); err != nil {
		return nil, err
	}
	return t.Tx.Prepare(ctx, name, sql)
}

// Begin opens a savepoint, which the caller ends.
func (t *producerTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := t.open(ctx); err != nil {
		return nil, err
	}
	t.nested = true
	return t.Tx.Begin(ctx)
}

func (t *producerTx) LargeObjects() pgx.LargeObjects {
	_ = t.open(context.Background()) // what failed, fails what is done with them
	return t.Tx.LargeObjects()
}

func (t *producerTx) Conn() *pgx.Conn { return t.conn }

var errInTx = errors.New("outbox: InTx ends this transaction: return an error to have it rolled back")

func (t *producerTx) Commit(context.Context) error   { return errInTx }
func (t *producerTx) Rollback(context.Context) error { return errInTx }
