package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// drainBatch is how many events one transaction of a drain takes at most.
	drainBatch = 500
	// drainScan is how many positions a drain looks at for them: a consumer of few types passes the others quickly.
	drainScan = 5000
	// drainCommit is after how long a batch stops where it is and commits.
	drainCommit = 2 * time.Second
	// drainKeys is how many keys the handlers of one batch may append to: each takes a lock until the commit.
	drainKeys = 64
	// drainLoneTries is how often an event may roll back a batch that holds nothing else before it is escalated.
	drainLoneTries = 5
)

// errUncovered says that the database subscribes the consumer to more than this program's code handles.
var errUncovered = errors.New("outbox: the consumer's subscriptions go beyond this program's code")

// IsUncovered reports whether a drain or a delivery was refused because this program's code does not cover the
// consumer's subscriptions: another build must do it.
func IsUncovered(err error) bool { return errors.Is(err, errUncovered) }

// Drain works off one lane of a consumer, batch by batch, until nothing is left or slice is over; then it reports
// whether more is left. Another drain of the same lane makes it return at once. jobID is the drain's own job.
//
// Every batch is one transaction: the lane's lock, the events after the cursor (or those that waited for a settled
// hold), the handlers' work, the dedupe rows, holds for what failed, and the cursor.
func (e *Engine) Drain(ctx context.Context, lane Lane, jobID int64, slice time.Duration) (more bool, err error) {
	c := e.reg.Consumer(lane.Consumer)
	if c == nil {
		return false, errUncovered
	}
	d := &drain{Engine: e, c: c, lane: lane.Lane, jobID: jobID, limit: drainBatch}
	if err := d.suspect(ctx); err != nil {
		return false, fmt.Errorf("outbox: drain %s/%d: %w", c.Name, lane.Lane, err)
	}
	for end := time.Now().Add(slice); ; {
		left, err := d.batch(ctx)
		switch {
		case ctx.Err() != nil:
			return true, ctx.Err()
		case errors.Is(err, errUncovered):
			return false, err
		case err != nil && !d.began:
			return false, fmt.Errorf("outbox: drain %s/%d: %w", c.Name, lane.Lane, err)
		case err != nil:
			if err := d.narrow(ctx, err); err != nil {
				return true, err
			}
			continue
		case !left:
			return false, nil
		}
		if time.Now().After(end) {
			return true, nil
		}
	}
}

// unknown is the place of an event where nothing says which it was.
const unknown = -1

// drain is one run of Drain.
type drain struct {
	*Engine
	c    *Consumer
	lane int16

	jobID     int64
	completed bool // the job is
	limit     int  // events in a batch at most
	lone      int  // batches of one event that were rolled back, one after the other
	escalate  bool // the next batch takes its first event out of the lane unrun
	cause     error
	began     bool // the batch got its events: from here on a failure may be theirs
	took      int  // how many of them it came to
	at        int  // the one it was at; 0 also where that is not known
	waitTurn  bool // the next batch is the window's turn, even if holds are settled
}

// suspect looks for drains of this lane that died in a batch. It must know before the first event is run again: what
// killed a process may kill this one, and then nobody remembers. So the try is written down, in a transaction of its
// own, and the batch is halved with each, until a single event is left to blame.
//
// A drain's job is completed by its first batch (or when it finds the lane taken). One that has run for a while and
// is not completed, while nobody has the lane, died before that; one that died later leaves no trace, and the
// next drain of the lane, which begins where it died, does.
func (d *drain) suspect(ctx context.Context) error {
	crashed := outboxdb.DrainCrashedParams{Queue: QueueName(d.c.Name), JobID: d.jobID, Lane: int32(d.lane)}
	if dead, err := d.q.DrainCrashed(ctx, d.db(d.pool), crashed); err != nil || len(dead) == 0 {
		return err
	}
	return d.inTx(ctx, func(tx pgx.Tx) error {
		db := d.db(tx)
		if ok, err := d.q.LaneLock(ctx, db, outboxdb.LaneLockParams{Lane: int32(d.lane), Consumer: d.c.Name}); err != nil || !ok {
			return err // a live drain has the lane
		}
		dead, err := d.q.DrainCrashed(ctx, db, crashed)
		if err != nil || len(dead) == 0 {
			return err // it had the lane, and is through
		}
		state, err := d.q.DrainState(ctx, db, outboxdb.DrainStateParams{Consumer: d.c.Name, Lane: d.lane})
		if err != nil {
			return err
		}
		rows, last, err := d.window(ctx, db, state.Pos, triedLimit(state.Tries))
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			last = rows[len(rows)-1].Pos
		}
		tries, err := d.q.DrainMarkTry(ctx, db, outboxdb.DrainMarkTryParams{SuspectPos: last, Consumer: d.c.Name, Lane: d.lane})
		if err != nil {
			return err
		}
		d.log.Warn("drain: a batch of this lane ended with its process or its connection; smaller batches until it is passed",
			"consumer", d.c.Name, "lane", d.lane, "tries", tries)
		return d.q.DrainBuryJobs(ctx, db, dead)
	})
}

// triedLimit is how many events a batch takes after so many that died.
func triedLimit(tries int32) int { return max(1, drainBatch>>min(tries, 30)) }

// narrow answers a batch that was rolled back as a whole: half of it next time, and in the end a single event that
// does it again and again leaves the lane.
func (d *drain) narrow(ctx context.Context, cause error) error {
	if !transient(cause) {
		d.log.Error("drain: batch rolled back", "consumer", d.c.Name, "lane", d.lane, "events", d.took, "error", cause)
	}
	switch {
	case d.at > 0:
		d.limit = d.at // those before it may go
	case d.at == 0 && d.took > 1:
		d.limit = 1
	case d.took > 1:
		d.limit = d.took / 2
	default:
		d.lone++
		// An error that names no event, like a deferred constraint at COMMIT, is the lone event's own.
		if d.lone >= drainLoneTries || !transient(cause) {
			d.escalate, d.cause = true, cause
		}
	}
	timer := time.NewTimer(time.Duration(1+d.lone) * 20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// batch runs one transaction and reports whether anything is left to do in the lane.
func (d *drain) batch(ctx context.Context) (more bool, err error) {
	d.began, d.took, d.at = false, 0, unknown
	began := time.Now()
	var b *batch
	err = d.inTx(ctx, func(tx pgx.Tx) error {
		db := d.db(tx)
		ok, err := d.q.LaneLock(ctx, db, outboxdb.LaneLockParams{Lane: int32(d.lane), Consumer: d.c.Name})
		if err != nil {
			return err
		}
		if d.jobID != 0 && !d.completed {
			if _, err := d.q.JobComplete(ctx, db, d.jobID); err != nil {
				return err
			}
		}
		if !ok {
			return nil
		}
		state, err := d.q.DrainState(ctx, db, outboxdb.DrainStateParams{Consumer: d.c.Name, Lane: d.lane})
		switch {
		case err != nil:
			return err
		case state.Paused:
			return nil
		case !d.c.covers(state.Patterns):
			return errUncovered
		}
		limit := min(d.limit, triedLimit(state.Tries))
		b = &batch{drain: d, tx: newHandlerTx(tx), deadline: began.Add(drainCommit)}
		if drainBatch>>min(state.Tries, 30) < 1 {
			b.blamed, d.escalate = true, true
			d.cause = errors.New("the process died again and again in a batch with this event alone")
		}
		if state.Settled && !d.waitTurn {
			return b.settled(ctx, limit)
		}
		return b.ahead(ctx, state.Pos, limit)
	})
	if err != nil {
		return false, err
	}
	d.completed = true
	if b == nil {
		return false, nil
	}
	d.waitTurn = !d.waitTurn && b.released
	d.lone, d.escalate, d.cause = 0, false, nil
	d.limit = min(2*d.limit, drainBatch)
	if b.wakes {
		Wake()
	}
	b.logDone(time.Since(began))
	if b.full {
		return true, nil
	}
	// The lock is free again. A wake-up that came while it was held found it taken and left: look once more.
	more, err = d.q.DrainPending(ctx, d.db(d.pool), outboxdb.DrainPendingParams{Consumer: d.c.Name, Lane: d.lane})
	if err != nil {
		d.began = false
	}
	return more, err
}

// window reads the events ahead of the cursor that the consumer subscribes to, and how far that has looked.
func (d *drain) window(ctx context.Context, db outboxdb.DBTX, cursor int64, limit int) ([]outboxdb.DrainWindowRow, int64, error) {
	last, err := d.q.DrainScan(ctx, db, outboxdb.DrainScanParams{Lane: d.lane, Cursor: cursor, Scan: drainScan})
	if err != nil || last <= cursor {
		return nil, cursor, err
	}
	rows, err := d.q.DrainWindow(ctx, db, outboxdb.DrainWindowParams{
		Consumer: d.c.Name, Lane: d.lane, Cursor: cursor, LastPos: last, Batch: int32(limit),
	})
	return rows, last, err
}

// ahead runs the events after the cursor.
func (b *batch) ahead(ctx context.Context, cursor int64, limit int) error {
	rows, last, err := b.window(ctx, b.db(b.tx), cursor, limit)
	if err != nil || last <= cursor {
		return err
	}
	items := make([]item, len(rows))
	for i := range rows {
		if !b.c.takes(rows[i].Type) {
			return errUncovered // subscribed to since the state was read
		}
		items[i] = newItem(rows[i])
	}
	b.began, b.took = true, len(items)
	if len(items) == limit {
		last, b.full = items[len(items)-1].event.Pos, true
	}
	done, err := b.run(ctx, items)
	if err != nil {
		return err
	}
	b.at, b.took = unknown, done
	if done < len(items) {
		last, b.full = items[done].event.Pos-1, true
	}
	if err := b.write(ctx, items[:done], false); err != nil {
		return err
	}
	return b.q.DrainAdvance(ctx, b.db(b.tx), outboxdb.DrainAdvanceParams{Pos: last, Consumer: b.c.Name, Lane: b.lane})
}

// settled runs what waited behind settled holds, in order, and lifts each hold behind which nothing is left.
func (b *batch) settled(ctx context.Context, limit int) error {
	b.released = true
	db := b.db(b.tx)
	holds, err := b.q.DrainSettled(ctx, db, outboxdb.DrainSettledParams{Consumer: b.c.Name, Lane: b.lane, Batch: drainBatch})
	if err != nil {
		return err
	}
	keys := make([]string, len(holds))
	b.lift = map[string]int{}
	for i, h := range holds {
		keys[i] = h.Key
		b.lift[h.Key] = i
	}
	b.settledHolds = holds
	// Also of a consumer that is not ordered: it may have been, and what waited then would wait for ever.
	slices.Sort(keys)
	rows, err := b.q.DrainWaiting(ctx, db, outboxdb.DrainWaitingParams{Consumer: b.c.Name, Keys: slices.Compact(keys), Batch: int32(limit)})
	if err != nil {
		return err
	}
	items := make([]item, len(rows))
	for i := range rows {
		items[i] = newItem(outboxdb.DrainWindowRow(rows[i]))
	}
	b.began, b.took = true, len(items)
	b.full = len(items) == limit || len(holds) == drainBatch
	done, err := b.run(ctx, items)
	if err != nil {
		return err
	}
	b.at, b.took = unknown, done
	b.full = b.full || done < len(items)
	return b.write(ctx, items[:done], true)
}
