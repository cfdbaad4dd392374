package outbox

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// Beginner starts a transaction: a *pgxpool.Pool, a *pgx.Conn, or a pgx.Tx (then a savepoint).
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// InTx runs fn in a transaction, commits it when fn returns nil, and then wakes the relay of this process, so that
// what fn appended travels at once and not with the relay's next poll. When fn fails or panics, the transaction is
// rolled back.
//
// An error of the commit itself may mean that the transaction did commit: look the outcome up by a key of your own
// before trying again.
func InTx(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error) error {
	if err := pgx.BeginFunc(ctx, db, fn); err != nil {
		return err
	}
	Wake()
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
