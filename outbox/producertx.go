package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
)

// producerTx is the transaction that InTx gives to its func. It begins with the first statement, in one round trip, and
// what was appended last travels with the commit: so a producer has no more round trips than without an event, and
// holds the keys' locks for no longer than the commit takes. Everything happens in the order in which it was asked for.
type producerTx struct {
	pgx.Tx // nil until it has begun
	conn   *pgx.Conn
	kept   []appends
	nested bool // a savepoint was opened: from then on events are written at once, inside or outside of it
}

// appends are events that are to be written into a schema.
type appends struct {
	schema Schema
	rows   []stored
}

// keep takes events to be written before the next statement, or with the commit. It reports whether it has.
func (t *producerTx) keep(s Schema, rows []stored) bool {
	if t.nested {
		return false
	}
	if n := len(t.kept); n > 0 && t.kept[n-1].schema == s {
		t.kept[n-1].rows = append(t.kept[n-1].rows, rows...)
	} else {
		t.kept = append(t.kept, appends{s, rows})
	}
	return true
}

// open begins the transaction if it has not begun, and writes what is kept.
func (t *producerTx) open(ctx context.Context) error {
	if t.Tx != nil && len(t.kept) == 0 {
		return nil
	}
	appends := len(t.kept) > 0
	if appends {
		failpoint.At(failpoint.ProducerAppendBefore)
	}
	if err := t.send(ctx, &pgx.Batch{}); err != nil {
		return err
	}
	if appends {
		failpoint.At(failpoint.ProducerAppendAfter)
	}
	return nil
}

// send begins the transaction if it has not begun, writes what is kept, and then what else is to be queued.
func (t *producerTx) send(ctx context.Context, b *pgx.Batch, more ...string) error {
	if t.Tx == nil {
		b.BeginTx(pgx.TxOptions{})
	}
	for _, k := range t.kept {
		k.schema.queueWrite(b, k.rows)
	}
	wrote := len(t.kept) > 0
	t.kept = nil
	for _, sql := range more {
		b.Queue(sql)
	}
	results := t.conn.SendBatch(ctx, b)
	if t.Tx == nil {
		t.Tx = results.Tx()
	}
	if err := results.Close(); err != nil {
		if wrote && sqlState(err) != "" {
			return fmt.Errorf("outbox: append: %w", err)
		}
		return err
	}
	return nil
}

// commit ends the transaction. What is kept travels with it.
func (t *producerTx) commit(ctx context.Context) error {
	failpoint.At(failpoint.ProducerCommitBefore)
	switch {
	case len(t.kept) > 0:
		return t.send(ctx, &pgx.Batch{}, "commit")
	case t.Tx != nil:
		return t.Tx.Commit(ctx)
	}
	return nil
}

// first reports whether a statement can be the one that the transaction begins with: one with arguments, and no options
// of pgx among them, is one statement and can be queued.
func (t *producerTx) first(args []any) bool {
	if t.Tx != nil || len(t.kept) > 0 || len(args) == 0 {
		return false
	}
	switch args[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID, pgx.QueryRewriter:
		return false
	}
	return true
}

// begin sends the first statement together with the begin, whose result it takes.
func (t *producerTx) begin(ctx context.Context, sql string, args []any) (pgx.BatchResults, error) {
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{})
	b.Queue(sql, args...)
	results := t.conn.SendBatch(ctx, b)
	t.Tx = results.Tx()
	_, err := results.Exec()
	return results, err
}

func (t *producerTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if !t.first(args) {
		if err := t.open(ctx); err != nil {
			return pgconn.CommandTag{}, err
		}
		return t.Tx.Exec(ctx, sql, args...)
	}
	results, err := t.begin(ctx, sql, args)
	var tag pgconn.CommandTag
	if err == nil {
		tag, err = results.Exec()
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	return tag, err
}

func (t *producerTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if !t.first(args) {
		if err := t.open(ctx); err != nil {
			return failedRow{err}
		}
		return t.Tx.QueryRow(ctx, sql, args...)
	}
	results, err := t.begin(ctx, sql, args)
	if err != nil {
		_ = results.Close() // the first error is the one that counts
		return failedRow{err}
	}
	return firstRow{results}
}

// firstRow is the row of a statement that was sent with the begin.
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
