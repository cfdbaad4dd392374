package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// relayBatch is how many rows one transaction of the relay moves at most.
	relayBatch = 5000
	// A relay that moved at least relayBusy rows lets relaySpacing pass before it looks again: small batches cost
	// more than they bring.
	relayBusy    = 16
	relaySpacing = 20 * time.Millisecond
	// An idle relay polls at growing intervals; a hint from this process wakes it at once.
	relayPollMin = 10 * time.Millisecond
	relayPollMax = 100 * time.Millisecond
	relayBeat    = time.Second
	// RelayDeadAfter is how long a relay may be silent before another is started beside it.
	RelayDeadAfter = 4 * time.Second
)

// errLostLead says that another relay took over. That is no failure.
var errLostLead = errors.New("outbox: another relay leads")

// Relay moves committed rows from the outbox to the log, in order, and wakes the lanes that have work, until stop is
// closed or ctx ends or another relay takes over. Several may run by mistake: one at a time moves, under an advisory
// lock, and one that finds another's token in relay_state ends.
//
// It outlives outages of the database. It returns an error only when it refuses to work: the log's head is below
// a position that something downstream has already seen, as after a restore that lost the end of the log.
func (e *Engine) Relay(ctx context.Context, stop <-chan struct{}) error {
	r := &relay{Engine: e, token: uuid.New(), wakes: newWakes()}
	hint, unlisten := hints.listen()
	defer unlisten()

	poll, pause := relayPollMin, time.Duration(0)
	for leads := false; ; {
		moved, err := 0, error(nil)
		if !leads {
			err = r.lead(ctx)
			leads = err == nil
		}
		if err == nil {
			moved, err = r.tick(ctx)
		}
		var refused *refusedError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errLostLead):
			e.log.Info("relay: another relay leads")
			return nil
		case errors.As(err, &refused):
			return err
		case err != nil:
			// One line per outage and not one per try.
			if pause == 0 {
				e.log.Error("relay: will try again", "error", err)
			}
			pause = min(max(2*pause, 50*time.Millisecond), time.Second)
		default:
			if pause > 0 {
				e.log.Info("relay: works again")
			}
			pause = 0
		}

		wait := poll
		switch {
		case pause > 0:
			wait = pause
		case moved >= relayBatch:
			wait, poll = 0, relayPollMin
		case moved >= relayBusy:
			wait, poll = relaySpacing, relayPollMin
		case moved > 0:
			wait, poll = relayPollMin, relayPollMin
		default:
			poll = min(2*poll, relayPollMax)
		}
		if next := r.wakes.next(time.Now()); pause == 0 {
			wait = min(wait, next)
		}
		wakeable := hint
		if moved >= relayBusy || pause > 0 {
			wakeable = nil // let what is being committed now come along
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-stop:
			timer.Stop()
			r.resign()
			return nil
		case <-wakeable:
			poll = relayPollMin
		case <-timer.C:
		}
		timer.Stop()
	}
}

// relay is one run of Relay.
type relay struct {
	*Engine
	token uuid.UUID
	wakes *wakes

	head    int64 // of the log, as this relay left it
	batch   int   // rows to move at most; halved when a batch fails
	beatAt  time.Time
	quarant bool
}

type refusedError struct{ head, highest int64 }

func (e *refusedError) Error() string {
	return fmt.Sprintf("outbox: the relay refuses to run: the log's head is %d, but position %d has been seen downstream "+
		"(was the database restored in part?)", e.head, e.highest)
}

// lead takes over: from here on every other relay finds a strange token and ends.
func (r *relay) lead(ctx context.Context) error {
	r.batch = relayBatch
	err := r.inTx(ctx, func(tx pgx.Tx) error {
		db := r.db(tx)
		if err := r.q.RelayLock(ctx, db); err != nil {
			return err
		}
		row, err := r.q.RelayLead(ctx, db, &r.token)
		if err != nil {
			return err
		}
		if row.Highest > row.Head {
			return &refusedError{row.Head, row.Highest}
		}
		r.head = row.Head
		r.quarant, err = r.q.RelayHasQuarantine(ctx, db)
		return err
	})
	if err != nil {
		return fmt.Errorf("take the lead: %w", err)
	}
	r.beatAt = time.Now()
	r.log.Info("relay: leads")
	return r.loadWakes(ctx)
}

// resign lets another process start a relay at once instead of after RelayDeadAfter.
func (r *relay) resign() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := r.q.RelayResign(ctx, r.db(r.pool), &r.token); err != nil {
		r.log.Warn("relay: resign", "error", err)
	}
}

// tick does what there is to do now and returns how many rows it moved.
func (r *relay) tick(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	peek, err := r.q.RelayPeek(ctx, r.db(r.pool))
	if err != nil {
		return 0, err
	}
	moved := 0
	if peek.Outbox {
		if moved, err = r.move(ctx); err != nil {
			return 0, err
		}
	}
	if moved == 0 && time.Since(r.beatAt) > relayBeat {
		if _, err := r.q.RelayBeat(ctx, r.db(r.pool), &r.token); errors.Is(err, pgx.ErrNoRows) {
			return 0, errLostLead
		} else if err != nil {
			return 0, err
		}
		r.beatAt = time.Now()
	}
	if err := r.sweep(ctx, peek.Settled); err != nil {
		return moved, err
	}
	return moved, nil
}

// move carries one batch from the outbox to the log and inserts, in the same transaction, the wake-ups it calls for.
func (r *relay) move(ctx context.Context) (int, error) {
	moved := 0
	var woken []Lane
	err := r.inTx(ctx, func(tx pgx.Tx) error {
		db := r.db(tx)
		if err := r.q.RelayLock(ctx, db); err != nil {
			return err
		}
		state, err := r.q.RelayStateGet(ctx, db, &r.token)
		switch {
		case err != nil:
			return err
		case !state.Leads:
			return errLostLead
		case state.Head < r.head:
			return &refusedError{state.Head, r.head}
		case state.PartitionedTo < state.Head+relayBatch*10:
			if err := r.q.RelayMakePartitions(ctx, db, state.Head+relayBatch*20); err != nil {
				return fmt.Errorf("make partitions: %w", err)
			}
		}
		if r.quarant {
			n, err := r.q.RelayQuarantineKeys(ctx, db)
			if err != nil {
				return err
			} else if n > 0 {
				r.log.Error("relay: rows set aside behind a quarantined row of their key", "rows", n)
			}
		}
		only := int64(0)
		if r.batch == 1 {
			// The one row is named: if it is refused, no other may be taken for it that is committed a moment later.
			if only, err = r.q.RelayFirst(ctx, db); err != nil {
				return err
			}
		}
		rows, err := r.q.RelayMove(ctx, db, outboxdb.RelayMoveParams{OnlySeq: only, Quarantine: r.quarant, Batch: int32(r.batch)})
		if err != nil {
			return &moveError{only, err}
		}
		for _, row := range rows {
			moved += int(row.Events)
			r.wakes.appeared(row.Lane, row.Type, row.Pos)
		}
		if woken = r.wakes.due(time.Now()); len(woken) == 0 {
			return nil
		}
		return r.jobs.WakeLanes(ctx, tx, woken)
	})
	if err != nil {
		r.wakes.forget(woken)
		return 0, r.refusedBatch(ctx, err)
	}
	r.beatAt, r.head = time.Now(), r.head+int64(moved)
	r.batch = min(2*r.batch, relayBatch)
	return moved, nil
}
