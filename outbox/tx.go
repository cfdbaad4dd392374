package outbox

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
)

// Beginner starts a transaction: a *pgxpool.Pool, a *pgx.Conn, or a pgx.Tx (then a savepoint).
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// InTx runs fn in a transaction, commits it when fn returns nil, and then wakes the relay of this process, so that
// what fn appended travels at once and not with the relay's next poll. When fn fails or panics, the transaction is
// rolled back. fn must not commit or roll it back itself.
//
// With a pool or a connection it takes fewer round trips than a transaction of one's own: it begins with fn's first
// statement, and what fn appends last is written with the commit, so that an error in writing it is InTx's own.
//
// An error of the commit itself may mean that the transaction did commit: look the outcome up by a key of your own
// before trying again. pgconn.SafeToRetry says so, too.
func InTx(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error) error {
	var err error
	committing, work := false, fn
	fn = func(tx pgx.Tx) error {
		err := work(tx)
		committing = err == nil
		return err
	}
	switch db := db.(type) {
	case *pgxpool.Pool:
		err = db.AcquireFunc(ctx, func(conn *pgxpool.Conn) error { return inProducerTx(ctx, conn.Conn(), fn) })
	case *pgx.Conn:
		err = inProducerTx(ctx, db, fn)
	default:
		err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if err := fn(tx); err != nil {
				return err
			}
			failpoint.At(failpoint.ProducerState)
			failpoint.At(failpoint.ProducerCommitBefore)
			return nil
		})
	}
	switch {
	case err != nil && committing:
		return &commitError{err}
	case err != nil:
		return err
	}
	failpoint.At(failpoint.ProducerCommitAfter)
	Wake()
	return nil
}

// commitError is an error of a commit, after which nobody knows. Of a connection that is lost in one, pgx says that nothing was sent.
type commitError struct{ cause error }

func (e *commitError) Error() string   { return e.cause.Error() }
func (e *commitError) Unwrap() error   { return e.cause }
func (*commitError) SafeToRetry() bool { return false }

func inProducerTx(ctx context.Context, conn *pgx.Conn, fn func(tx pgx.Tx) error) (err error) {
	tx := &producerTx{conn: conn}
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
