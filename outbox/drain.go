package outbox

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// drainBatch is how many events one transaction of a drain takes at most, and drainBytes how much data of theirs it
	// holds in memory: it stops at the event that goes beyond.
	drainBatch = 1000
	drainBytes = 8 << 20
	// drainBusy is how many events in one batch tell of load.
	drainBusy = 64
	// drainLarge is how many events in one batch tell of a backlog: more in one transaction make little of a difference.
	drainLarge = 200
	// drainScan is how many positions a drain looks at for them: a consumer of few types passes the others quickly.
	drainScan = 5000
	// drainCommit is after how long a batch stops where it is and commits.
	drainCommit = 2 * time.Second
	// drainKeys is how many keys the handlers of one batch may append to: each takes a lock until the commit.
	drainKeys = 64
	// drainCareful is how many events a batch takes that sends each statement alone.
	drainCareful = 64
	// drainLost is how often a drain whose batch broke comes back for the lane's lock, each 20 ms.
	drainLost = 50
	// drainLoneTries is how often an event may roll back a batch that holds nothing else before it is escalated.
	drainLoneTries = 5
)

// errUncovered says that the database subscribes the consumer to more than this program's code handles.
var errUncovered = errors.New("outbox: the consumer's subscriptions go beyond this program's code")

// errUnclear says that nobody knows how far a batch came, errTwice that an event in it had been processed before, or is
// held, which no later drain should come to see.
var (
	errUnclear = errors.New("outbox: statements of a batch could not be sent together")
	errTwice   = errors.New("outbox: an event of a batch had been dealt with before")
)

// IsUncovered reports whether a drain or a delivery was refused because this program's code does not cover the
// consumer's subscriptions: another build must do it.
func IsUncovered(err error) bool { return errors.Is(err, errUncovered) }

// Drain works off one lane of a consumer, batch by batch, until nothing is left or slice is over; then it reports
// whether more is left. Another drain of the same lane makes it return at once. jobID is the drain's own job, or 0 where it
// has none: then it looks for no traces of drains that died.
//
// Every batch is one transaction: the lane's lock, the events after the cursor (or those that waited for a settled
// hold), the handlers' work, the dedupe rows, holds for what failed, and the cursor.
func (e *Engine) Drain(ctx context.Context, lane Lane, jobID int64, slice time.Duration) (more bool, err error) {
	c := e.consumer(lane.Consumer)
	if c == nil {
		return false, errUncovered
	}
	d := &drain{Engine: e, c: c, pace: e.paceOf(c.Name), lane: lane.Lane, jobID: jobID, limit: drainBatch}
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

// DrainBegins says of a drain job that counts as running that its drain begins now, or within a time. Of one that began more than a second
// ago and has not ended, while nobody has its lane, the next drain of the lane believes that it died, and goes on carefully.
func (e *Engine) DrainBegins(ctx context.Context, jobID int64, within time.Duration) error {
	if err := e.q.DrainBegins(ctx, e.db(e.pool), outboxdb.DrainBeginsParams{Later: within.Seconds(), JobID: jobID}); err != nil {
		return fmt.Errorf("outbox: say when a drain begins: %w", err)
	}
	return nil
}

// unknown is the place of an event where nothing says which it was.
const unknown = -1

// drain is one run of Drain.
type drain struct {
	*Engine
	c    *Consumer
	pace *pace
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
	lost      int  // how often to come back for the lane's lock, which a lost connection of this drain's may still have
	careful   bool // the next batch sends its statements one by one
	probe     bool // the next batch asks which of its events were processed before
}

// reading is what a batch learns in its first round trip.
type reading struct {
	locked  bool
	crashed []int64
	state   outboxdb.DrainStateRow
	items   []item
	cut     bool                       // there were more items than the memory for them allows
	lifting []outboxdb.DrainSettledRow // settled holds, where it is their turn
}

// open begins a batch: the lane's lock, the state of things and, if it is their turn, the events ahead of the cursor.
// The drain's own job is done, and deleted, in its first batch, also when another drain has the lane.
func (d *drain) open(ctx context.Context) (*pipelined, *reading, error) {
	r := &reading{}
	tx, err := d.pipeline(ctx, func(b *pgx.Batch) {
		b.Queue(d.schema.sql(outboxdb.DrainTurn), int32(d.lane), d.c.Name).QueryRow(func(row pgx.Row) error {
			if err := row.Scan(&r.locked); !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			return nil // the consumer was removed or renamed: nobody has its lanes
		})
		if !d.completed && d.jobID != 0 {
			_ = d.q.DrainJobDone(ctx, d.queued(b), d.jobID)
			b.Queue(d.schema.sql(outboxdb.DrainCrashed), DrainQueue(d.c.Name), d.jobID, int32(d.lane)).Query(func(rows pgx.Rows) (err error) {
				r.crashed, err = pgx.CollectRows(rows, pgx.RowTo[int64])
				return err
			})
		}
		b.Queue(d.schema.sql(outboxdb.DrainState), d.waitTurn, d.c.Name, d.lane).Query(func(rows pgx.Rows) error {
			state, err := pgx.CollectRows(rows, pgx.RowToStructByPos[outboxdb.DrainStateRow])
			if len(state) > 0 {
				r.state = state[0]
			}
			return err
		})
		b.Queue(d.schema.sql(outboxdb.DrainWindow), d.c.Name, d.lane, int32(drainScan), int32(d.limit)).
			Query(func(rows pgx.Rows) (err error) {
				r.items, r.cut, err = scanItems(rows, d.limit)
				return err
			})
		b.Queue(d.schema.sql(outboxdb.DrainSettled), d.c.Name, d.lane, int32(drainBatch)).Query(func(rows pgx.Rows) (err error) {
			r.lifting, err = pgx.CollectRows(rows, pgx.RowToStructByPos[outboxdb.DrainSettledRow])
			return err
		})
		b.Queue(outboxdb.EngineLends)
	})
	return tx, r, err
}

// queued returns what queues generated queries on b.
func (e *Engine) queued(b *pgx.Batch) outboxdb.DBTX { return e.db(queueDB{batch: b}) }

// suspect notes, in the transaction that has the lane, that drains of it died in a batch. That must be known before
// their events are run again: what killed a process may kill this one, and then nobody remembers. So the try is written
// down, in a transaction of its own, and the batch is halved with each, until a single event is left to blame.
//
// A drain's job is deleted by its first batch (or when it finds the lane taken). One that has run for a while and
// is still there, while nobody has the lane, died before that; one that died later leaves no trace, and the
// next drain of the lane, which begins where it died, does.
func (d *drain) suspect(ctx context.Context, tx *pipelined, r *reading) error {
	db := d.db(tx)
	last, least := r.state.Pos, int32(0)
	if n := min(len(r.items), triedLimit(r.state.Tries)); n > 0 {
		last = r.items[n-1].event.Pos
		// Halving begins where there is something to halve, and leaves a lone event two more tries: each is a process.
		least = int32(bits.Len(uint(drainBatch/n))) - 2
	}
	tries, err := d.q.DrainMarkTry(ctx, db, outboxdb.DrainMarkTryParams{AtLeast: least, SuspectPos: last, Consumer: d.c.Name, Lane: d.lane})
	if err != nil {
		return err
	}
	d.log.Warn("drain: a batch of this lane ended with its process or its connection; smaller batches until it is passed",
		"consumer", d.c.Name, "lane", d.lane, "tries", tries)
	if err := d.q.DrainBuryJobs(ctx, db, r.crashed); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	failpoint.At(failpoint.DrainTry)
	return nil
}

// triedLimit is how many events a batch takes after so many that died.
func triedLimit(tries int32) int { return max(1, drainBatch>>min(tries, 30)) }

// narrow answers a batch that was rolled back as a whole: half of it next time, and in the end a single event that
// does it again and again leaves the lane.
func (d *drain) narrow(ctx context.Context, cause error) error {
	d.lost = drainLost
	switch {
	case errors.Is(cause, errUnclear) && !d.careful:
		d.careful, d.limit = true, min(d.limit, drainCareful)
		return nil
	case errors.Is(cause, errTwice) && !d.probe:
		d.probe = true
		return nil
	}
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
	return d.wait(ctx, time.Duration(1+d.lone)*20*time.Millisecond)
}

func (d *drain) wait(ctx context.Context, t time.Duration) error {
	timer := time.NewTimer(t)
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
	failpoint.At(failpoint.DrainFetchBefore)
	tx, r, err := d.open(ctx)
	if err != nil {
		return false, err
	}
	defer tx.end()
	switch {
	case len(r.crashed) > 0:
		return true, d.suspect(ctx, tx, r)
	case !r.locked || r.state.Paused:
		failpoint.At(failpoint.DrainTaken)
		if err := tx.commitLater(ctx); err != nil {
			return false, err
		}
		d.completed = true
		// After a batch that took its connection with it, it may be its own lock that is not gone yet.
		if d.lost > 0 && !r.locked {
			d.lost--
			return true, d.wait(ctx, 20*time.Millisecond)
		}
		return false, nil
	case !d.c.covers(r.state.Patterns):
		return false, errUncovered
	}
	b := &batch{drain: d, tx: newHandlerTx(tx.Tx), reading: r, deadline: began.Add(drainCommit)}
	defer b.tx.land()
	limit := min(d.limit, triedLimit(r.state.Tries))
	if drainBatch>>min(r.state.Tries, 30) < 1 {
		b.blamed, d.escalate = true, true
		d.cause = errors.New("the process died again and again in a batch with this event alone")
	}
	if r.state.Ahead {
		err = b.ahead(ctx, limit)
	} else {
		err = b.release(ctx, limit)
	}
	if err == nil {
		b.logDone(time.Since(began)) // while the events' spans are there
	}
	b.endSpans(err)
	if err != nil {
		return false, err
	}
	tx.commits()
	failpoint.At(failpoint.DrainCommitAfter)
	d.completed = true
	d.waitTurn = !d.waitTurn && b.released
	d.lone, d.escalate, d.cause, d.careful, d.probe, d.lost = 0, false, nil, false, false, 0
	if d.limit = min(2*d.limit, drainBatch); r.cut {
		d.limit = max(1, len(b.items))
	}
	if len(b.tx.appended) > 0 {
		Wake()
	}
	b.wakeWaiting()
	b.observe(time.Since(began))
	if b.done >= drainBusy {
		d.busyAt.Store(time.Now().UnixNano())
	}
	if b.full || b.done >= drainLarge {
		d.pace.large(b.full && !b.released)
	}
	if b.full && !b.released {
		d.lookForWriters(ctx)
	}
	return b.full || b.pending, nil
}

// ahead runs the events after the cursor.
func (b *batch) ahead(ctx context.Context, limit int) error {
	b.full = b.cut || len(b.items) >= limit
	b.items = b.items[:min(limit, len(b.items))]
	for i := range b.items {
		if !b.c.takes(b.items[i].event.Type) {
			return errUncovered // subscribed to since the state was read
		}
	}
	for i := range b.items {
		b.items[i].run, b.items[i].muted = b.state.Run, !b.state.Appends
	}
	b.began, b.took = true, len(b.items)
	return b.run(ctx)
}

// release runs what waited behind settled holds, in order, and lifts each hold behind which nothing is left.
func (b *batch) release(ctx context.Context, limit int) error {
	b.released = true
	keys := make([]string, len(b.lifting))
	b.lift = map[string]int{}
	for i, h := range b.lifting {
		keys[i] = h.Key
		b.lift[h.Key] = i
	}
	// Also of a consumer that is not ordered: it may have been, and what waited then would wait for ever.
	slices.Sort(keys)
	keys = slices.Compact(keys)
	share := max(drainChunk, limit/max(1, len(keys))+1)
	reads := &pgx.Batch{}
	reads.Queue(outboxdb.EngineTakesBack)
	reads.Queue(b.schema.sql(outboxdb.DrainWaiting), keys, b.c.Name, int32(share), int32(limit)).
		Query(func(rows pgx.Rows) (err error) {
			b.items, b.cut, err = scanItems(rows, limit)
			return err
		})
	reads.Queue(outboxdb.EngineLends)
	if err := b.tx.SendBatch(ctx, reads).Close(); err != nil {
		return err
	}
	failpoint.At(failpoint.DrainRelease)
	b.began, b.took = true, len(b.items)
	b.full = b.cut || len(b.items) == limit || len(b.lifting) == drainBatch
	return b.run(ctx)
}
