package outbox

import (
	"context"
	"sync"

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
func Wake() { hints.wake() }

// hints carries wake-ups from the producers of this process to its relays.
var hints = hub{listeners: map[chan struct{}]struct{}{}}

type hub struct {
	mu        sync.RWMutex
	listeners map[chan struct{}]struct{}
}

func (h *hub) wake() {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for c := range h.listeners {
		select {
		case c <- struct{}{}:
		default: // it is awake already
		}
	}
}

// listen returns a channel that gets a value soon after each wake-up, and a func that ends that.
func (h *hub) listen() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners[c] = struct{}{}
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.listeners, c)
	}
}
