package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
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
	// relayPauseMax is how long it waits at most before it tries again what failed: as long, events wait when the database is back.
	relayPauseMax = 250 * time.Millisecond
	// RelayDeadAfter is how long a relay may be silent before another is started beside it.
	RelayDeadAfter = 4 * time.Second
)

// errLostLead says that another relay took over. That is no failure.
var errLostLead = errors.New("outbox: another relay leads")

// errUndone says that the server crashed, and that the end of what this relay did is undone.
var errUndone = errors.New("outbox: a crash of the server undid a move")

// Relay moves committed rows from the outbox to the log, in order, and wakes the lanes that have work, until stop is
// closed or ctx ends or another relay takes over. Several may run by mistake: one at a time moves, under an advisory
// lock, and one that finds another's token in relay_state ends.
//
// It outlives outages of the database. It returns an error only when it refuses to work: the log's head is below
// a position that something downstream has already seen, as after a restore that lost the end of the log.
func (e *Engine) Relay(ctx context.Context, stop <-chan struct{}) error {
	r := &relay{Engine: e, token: uuid.New(), wakes: newWakes(), tally: &tally{}}
	hint, unlisten := hints.listen()
	defer unlisten()
	defer r.endSampling()

	poll, pause := relayPollMin, time.Duration(0)
	settled := false
	for leads, led, told := false, false, true; ; {
		moved, err := 0, error(nil)
		if !leads {
			err = r.lead(ctx, led)
			leads = err == nil
			if leads && !led {
				led = true
				r.startSampling(ctx)
			}
		}
		if err == nil {
			moved, err = r.tick(ctx, told, settled)
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
			// Who knows what answers next, and what a crash has undone: head, floor and lanes are learnt anew.
			r.floor, leads = floor{}, false
			// One line per outage and not one per try.
			if pause == 0 {
				e.log.Error("relay: will try again", "error", err)
			}
			pause = min(max(2*pause, 50*time.Millisecond), relayPauseMax)
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
		wakeable := hint.C
		if moved >= relayBusy || pause > 0 {
			wakeable = nil // let what is being committed now come along
		}
		timer := time.NewTimer(wait)
		told, settled = moved > 0, false
		select {
		case <-ctx.Done():
		case <-stop:
			timer.Stop()
			r.resign()
			return nil
		case <-wakeable:
			poll = relayPollMin
			told, settled = hint.appended.Swap(false) || told, hint.settled.Swap(false)
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
	floor   floor
	tally   *tally
	batch   int // rows to move at most; halved when a batch fails
	beatAt  time.Time
	dueAt   time.Time // the last look at what is scheduled
	quarant bool
	untold  *moved // what was moved last, of which spans are to be made

	stopSampling func() // nil before it has led
}

type refusedError struct{ head, highest int64 }

func (e *refusedError) Error() string {
	return fmt.Sprintf("outbox: the relay refuses to run: the log's head is %d, but position %d has been seen downstream "+
		"(was the database restored in part?)", e.head, e.highest)
}

// lead takes over: from here on every other relay finds a strange token and ends. One that has led goes on, with what the database
// knows now, unless another has taken over from it.
func (r *relay) lead(ctx context.Context, led bool) error {
	if !led {
		r.batch = relayBatch
	}
	err := r.inTx(ctx, func(tx pgx.Tx) error {
		db := r.db(tx)
		if err := r.q.RelayLock(ctx, db); err != nil {
			return err
		}
		if led {
			if state, err := r.q.RelayStateGet(ctx, db, &r.token); err != nil {
				return err
			} else if !state.Leads {
				return errLostLead
			}
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
	failpoint.At(failpoint.RelayLeadAfter)
	r.tally.reset(r.head)
	r.beatAt = time.Now()
	if !led {
		r.log.Info("relay: leads")
	}
	return r.loadWakes(ctx)
}

// startSampling begins to keep statistics in the background, and tells the observer; endSampling ends both.
func (r *relay) startSampling(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	s := &sampler{Engine: r.Engine, token: r.token, tally: r.tally}
	go func() {
		defer close(ended)
		s.run(ctx)
	}()
	r.stopSampling = func() {
		cancel()
		<-ended
	}
	r.cfg.Observer.ObserveLead(true)
}

func (r *relay) endSampling() {
	if r.stopSampling != nil {
		r.stopSampling()
		r.cfg.Observer.ObserveLead(false)
	}
}

// resign lets another process start a relay at once instead of after RelayDeadAfter.
func (r *relay) resign() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := r.q.RelayResign(ctx, r.db(r.pool), &r.token); err != nil {
		r.log.Warn("relay: resign", "error", err)
	}
}

// tick does what there is to do now and returns how many rows it moved. A relay that was told of rows to move, or of
// settled holds, does not ask first.
func (r *relay) tick(ctx context.Context, told, settled bool) (moved int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	above, due := r.floor.from(time.Now()), false
	if !told && !settled {
		peek, err := r.q.RelayPeek(ctx, r.db(r.pool), above)
		if err != nil {
			return 0, err
		}
		told, settled, due = peek.Outbox, peek.Settled, peek.Due
	}
	if due {
		if due, err = r.releaseDue(ctx); err != nil {
			return 0, err
		}
		told = told || due
	}
	if told {
		var seen bool
		if moved, seen, err = r.move(ctx, above); err != nil {
			return 0, err
		}
		settled = settled || seen
	}
	if drained := time.Unix(0, r.busyAt.Load()); drained.After(r.wakes.busyAt) {
		r.wakes.busyAt = drained
	}
	// First what is new: whatever else there is to ask takes time.
	quiet := moved < relayBusy
	if err := r.wake(ctx, quiet); err != nil {
		return moved, err
	}
	r.tellMoved(ctx)
	if told && time.Since(r.dueAt) > dueEvery {
		if due, err = r.releaseDue(ctx); err != nil {
			return moved, err
		} else if due {
			Wake()
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
	if err := r.sweep(ctx, settled); err != nil {
		return moved, err
	}
	return moved, r.wake(ctx, quiet)
}

// move carries one batch from the outbox to the log, in one round trip. It looks at rows with a number above the given
// one, and also reports whether it saw settled holds. Which lanes to wake it leaves in memory: a wake-up that is lost with
// this process is made good by the next relay, which finds the lanes behind.
func (r *relay) move(ctx context.Context, above int64) (moved int, settled bool, err error) {
	only := int64(0)
	if r.batch == 1 {
		// The one row is named: if it is refused, no other may be taken for it that is committed a moment later.
		if only, err = r.q.RelayFirst(ctx, r.db(r.pool)); err != nil || only == 0 {
			return 0, false, err
		}
	}
	var (
		turn  outboxdb.RelayTurnRow
		rows  []outboxdb.RelayMoveRow
		id    int64
		aside int64
	)
	failpoint.At(failpoint.RelayClaimBefore)
	began := time.Now()
	tx, err := r.pipeline(ctx, func(b *pgx.Batch) {
		b.Queue(outboxdb.EngineCommitsLater)
		b.Queue(r.schema.sql(outboxdb.RelayLock))
		queueRow(b, &turn, r.schema.sql(outboxdb.RelayTurn), &r.token, r.head, int64(relayBatch))
		if r.quarant {
			b.Queue(r.schema.sql(outboxdb.RelayQuarantineKeys)).Exec(func(tag pgconn.CommandTag) error {
				aside = tag.RowsAffected()
				return nil
			})
		}
		b.Queue(r.schema.sql(outboxdb.RelayMove), above, int32(r.batch), only, r.quarant).Query(func(got pgx.Rows) (err error) {
			if rows, err = pgx.CollectRows(got, pgx.RowToStructByPos[outboxdb.RelayMoveRow]); err != nil {
				return &moveError{only, err}
			}
			return nil
		})
		b.Queue(r.schema.sql(outboxdb.RelayOwnID)).QueryRow(func(row pgx.Row) error { return row.Scan(&id) })
		b.Queue("commit")
	})
	if err != nil {
		return 0, false, r.refusedBatch(ctx, err)
	}
	tx.commits()
	tx.end()
	switch {
	case !turn.Leads:
		return 0, false, errLostLead
	case turn.Head < r.head:
		return 0, false, errUndone
	case !turn.May:
		return 0, turn.Settled, r.makePartitions(ctx, turn.Head)
	case aside > 0:
		r.log.Error("relay: rows set aside behind a quarantined row of their key", "rows", aside)
	}
	last, now := int64(0), time.Now()
	for _, row := range rows {
		moved += int(row.Events)
		last = max(last, row.Seq)
		r.wakes.appeared(now, row.Lane, row.Type, row.Pos, row.Events)
	}
	if only == 0 && moved > 0 {
		r.floor.moved(turn, rows[0].Bounded, last, id)
	}
	r.wakes.backlog = moved >= relayBatch
	r.head = turn.Head + int64(moved)
	if moved > 0 {
		r.tally.moved(rows, r.head, r.floor.above)
		r.cfg.Observer.ObserveRelay(moved)
	}
	r.batch = min(2*r.batch, relayBatch)
	if moved > 0 {
		r.beatAt = time.Now()
		r.toTell(turn.Head, rows, began)
		failpoint.At(failpoint.RelayClaimAfter)
	}
	if moved >= relayBusy {
		r.wakes.busyAt = r.beatAt
	}
	return moved, turn.Settled, nil
}

// makePartitions makes room in the log for the coming batches. The next look moves.
func (r *relay) makePartitions(ctx context.Context, head int64) error {
	err := r.inTx(ctx, func(tx pgx.Tx) error {
		db := r.db(tx)
		if err := r.q.RelayLock(ctx, db); err != nil {
			return err
		}
		if err := r.q.RelayMakePartitions(ctx, db, head+relayBatch*20); err != nil {
			return err
		}
		failpoint.At(failpoint.RelayPartitions)
		return nil
	})
	if err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	Wake()
	return nil
}
