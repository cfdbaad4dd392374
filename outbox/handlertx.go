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
	owners   []owner // of each queued statement
	at       owner   // of what is queued now
	sent     int     // statements sent so far
	single   bool    // send each statement alone
	nested   bool    // the handler opened a savepoint: what it leaves to Later is sent at once, inside or outside of that
	failure  *failure
	flying   chan *failure // what of a batch that is under way will become, or nil
	appended []stored
}

// owner tells whose a queued statement is: that of the event in that place of a batch, by its handler or, around it,
// by the engine.
type owner struct {
	item    int
	handler bool
}

// ours is the owner of what the engine writes for a whole batch.
var ours = owner{item: unknown}

// failure is what went wrong with a sent statement.
type failure struct {
	owner
	err error
	// Nothing that was sent with it may be relied upon, not even a savepoint.
	unclear bool
}

// Batch returns a batch on which the handler of the present context can queue statements instead of sending them one
// by one: those of many events then travel in few round trips. They are sent, in order, before the transaction
// ends and before any statement the handler sends through its tx. Do not keep it beyond the call of the handler.
// An error of a queued statement, and of a function that the handler gave it to call with its result, counts as the
// error of the handler that queued it. Queue without such functions where you can: what comes after a result that
// somebody waits for cannot travel with it.
//
// It panics outside of a handler registered with Handle or HandleBatch.
func Batch(ctx context.Context) *pgx.Batch {
	d := deliveryFrom(ctx)
	if d == nil || d.tx == nil {
		panic("outbox: Batch called outside of a handler registered with Handle or HandleBatch")
	}
	return d.tx.batch
}

func newHandlerTx(tx pgx.Tx) *handlerTx {
	return &handlerTx{Tx: tx, batch: &pgx.Batch{}, at: ours}
}

// later takes a statement to be sent with others.
func (t *handlerTx) later(sql string, args []any) bool {
	if t.nested || !queueable(args) {
		return false
	}
	t.batch.Queue(sql, args...)
	return true
}

// belongs says whose the statements are that are queued from here on.
func (t *handlerTx) belongs(to owner) {
	for len(t.owners) < t.batch.Len() {
		t.owners = append(t.owners, t.at)
	}
	t.at = to
}

// take empties the batch and returns what was in it. The batch itself stays the one that handlers were given.
func (t *handlerTx) take() (*pgx.Batch, []owner) {
	t.belongs(t.at)
	queued, owners := *t.batch, t.owners
	t.sent += queued.Len()
	*t.batch, t.owners = pgx.Batch{}, nil
	return &queued, owners
}

// drop forgets what was queued after the first n statements.
func (t *handlerTx) drop(n int) {
	t.batch.QueuedQueries = t.batch.QueuedQueries[:n]
	t.owners = t.owners[:min(n, len(t.owners))]
}

// waits reports whether somebody wants to see a result of what is queued.
func (t *handlerTx) waits() bool {
	for _, q := range t.batch.QueuedQueries {
		if q.Fn != nil {
			return true
		}
	}
	return false
}

// flush sends what is queued and waits for its results. What failed is also kept in failure: the handler that is told of
// it may be another's.
func (t *handlerTx) flush(ctx context.Context) error {
	t.land()
	if t.failure == nil && t.batch.Len() > 0 {
		batch, owners := t.take()
		t.failure = t.send(ctx, batch, owners)
	}
	if t.failure != nil {
		return t.failure.err
	}
	return nil
}

// fly sends what is queued and returns; done is called when its results are there. Until land returns, or flush, the
// transaction must not be used but for queueing.
func (t *handlerTx) fly(ctx context.Context, done func()) {
	batch, owners := t.take()
	t.flying = make(chan *failure, 1)
	go func() {
		f := t.send(ctx, batch, owners)
		done()
		t.flying <- f
	}()
}

// land waits for what is under way.
func (t *handlerTx) land() {
	if t.flying == nil {
		return
	}
	if f := <-t.flying; f != nil {
		t.failure = f // what was sent before counts before what failed since
	}
	t.flying = nil
}

func (t *handlerTx) send(ctx context.Context, batch *pgx.Batch, owners []owner) *failure {
	if t.single {
		return t.sendSingly(ctx, batch, owners)
	}
	results := t.Tx.SendBatch(ctx, batch)
	for i, q := range batch.QueuedQueries {
		var err error
		if q.Fn != nil {
			err = q.Fn(results)
		} else {
			_, err = results.Exec()
		}
		if err != nil {
			_ = results.Close() // the first error is the one that counts
			return &failure{owner: owners[i], err: err, unclear: errors.As(err, new(pgx.ErrPreprocessingBatch))}
		}
	}
	if err := results.Close(); err != nil {
		return &failure{owner: ours, err: err, unclear: true}
	}
	return nil
}

// sendSingly sends statement by statement. One that cannot even be prepared, or whose arguments cannot be encoded, then
// takes nothing else with it.
func (t *handlerTx) sendSingly(ctx context.Context, batch *pgx.Batch, owners []owner) *failure {
	for i, q := range batch.QueuedQueries {
		one := &pgx.Batch{}
		one.Queue(q.SQL, q.Arguments...).Fn = q.Fn
		if err := t.Tx.SendBatch(ctx, one).Close(); err != nil {
			return &failure{owner: owners[i], err: err}
		}
	}
	return nil
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

func (t *handlerTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	return t.Tx.Prepare(ctx, name, sql)
}

// LargeObjects and Conn send nothing: what is queued goes when the handler, or the engine, next sends something here.
func (t *handlerTx) LargeObjects() pgx.LargeObjects {
	t.land()
	return t.Tx.LargeObjects()
}

func (t *handlerTx) Conn() *pgx.Conn {
	t.land()
	return t.Tx.Conn()
}

// Begin opens a savepoint, which the handler may commit or roll back.
func (t *handlerTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	t.nested = true
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
