package outbox

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
)

// Beginner starts a transaction: a *pgxpool.Pool, a *pgx.Conn, or a pgx.Tx (then a savepoint).
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// TxBeginner starts a transaction with options: a *pgxpool.Pool, a *pgxpool.Conn or a *pgx.Conn.
type TxBeginner interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// InTx runs fn in a transaction, commits it when fn returns nil, and then wakes the relay of this process, so that
// what fn appended travels at once and not with the relay's next poll. When fn fails or panics, the transaction is
// rolled back. fn must not commit or roll it back itself.
//
// With a pool or a connection it takes fewer round trips than a transaction of one's own: it begins with fn's first
// statement, and what fn appends, or leaves to Later, travels with the statement that comes next or with the commit. An error
// of that is then the next statement's, or InTx's own.
//
// An error of the commit itself may mean that the transaction did commit: see IsOutcomeUnknown.
func InTx(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error) error {
	return inTx(ctx, db, pgx.TxOptions{}, fn, func(fn func(pgx.Tx) error) error { return pgx.BeginFunc(ctx, db, fn) })
}

// InTxOptions is InTx for a transaction with options. A BeginQuery must be a single statement.
func InTxOptions(ctx context.Context, db TxBeginner, options pgx.TxOptions, fn func(tx pgx.Tx) error) error {
	return inTx(ctx, db, options, fn, func(fn func(pgx.Tx) error) error { return pgx.BeginTxFunc(ctx, db, options, fn) })
}

// inTx is InTxOptions. Where it does not know the kind of db, plain is the transaction.
func inTx(ctx context.Context, db any, options pgx.TxOptions, work func(pgx.Tx) error, plain func(fn func(pgx.Tx) error) error) error {
	var err error
	committing := false
	fn := func(tx pgx.Tx) error {
		err := work(tx)
		committing = err == nil
		return err
	}
	switch db := db.(type) {
	case *pgxpool.Pool:
		err = db.AcquireFunc(ctx, func(conn *pgxpool.Conn) error { return inProducerTx(ctx, conn.Conn(), options, fn) })
	case *pgxpool.Conn:
		err = inProducerTx(ctx, db.Conn(), options, fn)
	case *pgx.Conn:
		err = inProducerTx(ctx, db, options, fn)
	default:
		err = plain(func(tx pgx.Tx) error {
			if err := fn(tx); err != nil {
				return err
			}
			failpoint.At(failpoint.ProducerState)
			failpoint.At(failpoint.ProducerCommitBefore)
			return nil
		})
	}
	switch {
	case err != nil && committing && !rolledBack(err):
		return &commitError{err}
	case err != nil:
		return err
	}
	failpoint.At(failpoint.ProducerCommitAfter)
	Wake()
	return nil
}

// IsOutcomeUnknown reports whether an error of InTx or InTxOptions came with the commit, of which nobody knows whether it
// happened: look that up by a key of your own before trying again. pgconn.SafeToRetry is false for such an error. After any
// other, the transaction was rolled back.
func IsOutcomeUnknown(err error) bool {
	var unknown *commitError
	return errors.As(err, &unknown)
}

// rolledBack reports whether what the server answered to a commit, or to what was sent with it, says that it did not happen:
// a plain error, and not the end of the connection or something broken in the server or between.
func rolledBack(err error) bool {
	var pg *pgconn.PgError
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		return true
	}
	if !errors.As(err, &pg) || pg.SeverityUnlocalized != "ERROR" || len(pg.Code) != 5 {
		return false
	}
	switch pg.Code[:2] {
	case "08", "58", "XX":
		return false
	}
	return pg.Code[:3] != "57P"
}

// commitError is an error of a commit, after which nobody knows. Of a connection that is lost in one, pgx says that nothing was sent.
type commitError struct{ cause error }

func (e *commitError) Error() string   { return e.cause.Error() }
func (e *commitError) Unwrap() error   { return e.cause }
func (*commitError) SafeToRetry() bool { return false }

func inProducerTx(ctx context.Context, conn *pgx.Conn, options pgx.TxOptions, fn func(tx pgx.Tx) error) (err error) {
	tx := &producerTx{conn: conn, options: options}
	committed := false
	defer func() {
		if tx.Tx == nil || committed {
			return
		}
		if rolledBack := tx.Tx.Rollback(ctx); rolledBack != nil && !errors.Is(rolledBack, pgx.ErrTxClosed) {
			err = errors.Join(err, rolledBack)
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	failpoint.At(failpoint.ProducerState)
	if err := tx.commit(ctx); err != nil {
		return err
	}
	committed = true
	return nil
}

// Wake tells the relays of this process that something was committed to the outbox. It never blocks and may be called
// at any time; a wake-up too many costs one query.
func Wake() { hints.wake(true) }

// wakeSettled tells them that holds were settled, and nothing else.
func wakeSettled() { hints.wake(false) }

// hints carries wake-ups from the producers of this process to its relays.
var hints = hub{listeners: map[*listener]struct{}{}}

type hub struct {
	mu        sync.RWMutex
	listeners map[*listener]struct{}
}

// listener gets a value on C soon after each wake-up.
type listener struct {
	C        chan struct{}
	appended atomic.Bool // by some wake-up since this was last asked
	settled  atomic.Bool
}

func (h *hub) wake(appended bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for l := range h.listeners {
		if appended {
			l.appended.Store(true)
		} else {
			l.settled.Store(true)
		}
		select {
		case l.C <- struct{}{}:
		default: // it is awake already
		}
	}
}

// listen returns a listener, and a func that ends it.
func (h *hub) listen() (*listener, func()) {
	l := &listener{C: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners[l] = struct{}{}
	return l, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.listeners, l)
	}
}
