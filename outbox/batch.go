package outbox

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// outcome is what became of an event in a batch.
type outcome int

const (
	pending   outcome = iota
	applied           // the handler's work is in the transaction, or on its way
	duplicate         // it had been processed before
	failed            // the handler failed: it becomes a hold
	suspect           // it is taken out of the lane unrun
	external          // it gets a job of its own
	deferred          // so does one that is not due
	parked            // it waits behind an event of its key
)

func (o outcome) String() string {
	return [...]string{"pending", "applied", "duplicate", "failed", "suspect", "external", "scheduled", "waiting"}[o]
}

type item struct {
	event     *stored
	run       int64 // the backfill that it is delivered in, or 0
	muted     bool  // what its handler appends is not written
	early     bool  // it is not due
	processed bool
	waits     bool // behind what was held before the batch
	outcome   outcome
	err       error
	dead      bool // it failed for good
	chunk     int  // the first item of its savepoint
	marks     int  // how much was appended before that
	trace     *eventTrace
}

// batch is one transaction of a drain.
type batch struct {
	*drain
	*reading
	tx       *handlerTx
	deadline time.Time

	held map[string]int  // keys that are held up, by the first item that does, or unknown for what was held before
	keys map[string]bool // keys that handlers appended to

	released bool           // the batch runs what waited for settled holds
	blamed   bool           // its first event is escalated because processes died with it
	lift     map[string]int // the hold that is being lifted, by key
	full     bool           // there may be more right behind
	pending  bool           // and so it was seen after the commit
	done     int            // how many events the batch got to
	span     trace.Span     // nil: none of its events is traced
	counts   [parked + 1]int
}

// scanItems reads the rows of a window, and reports whether it left some out for the size of their data. It is the engine's
// hottest loop: as what they are made of, the id and the data are copied; as what they are, they would be decoded as text
// and as JSON first.
func scanItems(rows pgx.Rows, most int) (items []item, cut bool, err error) {
	size := 0
	// Rows of a statement that failed have no fields, and panic when they are asked for them.
	if err := rows.Err(); err != nil {
		return nil, false, err
	}
	// The window leaves out what holds for all its rows.
	runs := len(rows.FieldDescriptions()) > 13
	var (
		fields []any
		held   int32
		run    int64
		muted  bool
	)
	events := make([]stored, 0, min(most, 64))
	for rows.Next() {
		if len(events) == cap(events) {
			events = make([]stored, 0, min(most, 4*cap(events)))
		}
		events = append(events, stored{})
		e := &events[len(events)-1]
		fields = append(fields[:0], &e.Pos, (*[16]byte)(&e.ID), &e.Type, &e.Key, &e.Lane, (*[]byte)(&e.Data), &e.CorrelationID,
			&e.CausationID, &e.TraceParent, &e.Source, &e.SchemaVersion, &e.OccurredAt, &held)
		if runs {
			fields = append(fields, &run, &muted)
		}
		if err := rows.Scan(fields...); err != nil {
			return nil, false, err
		}
		if size += len(e.Data); size > drainBytes && len(items) > 0 {
			rows.Close()
			return items, true, rows.Err()
		}
		it := item{event: e, run: run, muted: muted}
		it.hold(held)
		items = append(items, it)
	}
	return items, false, rows.Err()
}

// hold notes how the window found the event's key held, 1 by another event, 2 by the very one; or 3, that it is not due.
func (i *item) hold(held int32) {
	if held == 1 || held == 2 {
		i.outcome = parked
	}
	i.processed, i.early = held == 2, held == 3
}

// run gives each item an outcome, as far as it gets within the batch's bounds, and writes and commits it all.
func (b *batch) run(ctx context.Context) error {
	failpoint.At(failpoint.DrainFetchAfter)
	b.held, b.keys = map[string]int{}, map[string]bool{}
	b.startSpans(ctx)
	if b.probe {
		if err := b.findProcessed(ctx); err != nil {
			return err
		}
	}
	seen := make(map[uuid.UUID]bool, len(b.items))
	for i := range b.items {
		it := &b.items[i]
		it.chunk = unknown
		// The same id may stand twice in one batch: its row in processed_events is not written yet.
		it.processed = it.processed || seen[it.event.ID]
		seen[it.event.ID] = true
		held := b.c.Ordered && it.outcome == parked
		if it.waits = held; held {
			b.held[it.event.Key] = unknown
		}
		switch {
		case it.processed:
			it.outcome = duplicate
		case !held:
			it.outcome = pending
		}
	}
	if b.escalate && len(b.items) > 0 {
		if it := &b.items[0]; it.outcome == pending {
			failpoint.At(failpoint.DrainEscalate)
			it.outcome, it.err = suspect, fmt.Errorf("taken out of its lane: %w", b.cause)
			b.hold(0)
		}
	}
	c := newChunks(b)
	for {
		if err := c.handle(ctx); err != nil {
			return err
		}
		b.done, b.took = c.next, c.next
		if err := b.finish(ctx); err == nil {
			return nil
		} else if b.tx.failure == nil {
			return err
		}
		// What was still on its way failed: back to where that began.
		if err := c.recover(ctx); err != nil {
			return err
		}
	}
}

// findProcessed asks which of the events were processed before, each under the name of its run, or are held.
func (b *batch) findProcessed(ctx context.Context) error {
	ids := map[int64][]uuid.UUID{} // by run
	for i := range b.items {
		it := &b.items[i]
		ids[it.run] = append(ids[it.run], it.event.ID)
	}
	found := map[int64][]uuid.UUID{}
	for run, of := range ids {
		var err error
		if found[run], err = b.q.DrainProcessed(ctx, b.db(b.tx), outboxdb.DrainProcessedParams{
			Dedupe: dedupe(b.state.Dedupe, run), Consumer: b.c.Name, EventIds: of,
		}); err != nil {
			return err
		}
	}
	for i := range b.items {
		it := &b.items[i]
		it.processed = it.processed || slices.Contains(found[it.run], it.event.ID)
	}
	return nil
}

func (b *batch) late() bool { return time.Now().After(b.deadline) }

// decide settles what needs no handler, and reports whether the item's handler is to run.
func (b *batch) decide(i int) bool {
	it := &b.items[i]
	switch {
	case it.outcome != pending:
		return false
	case b.isHeld(i):
		it.outcome = parked
	case it.early:
		it.outcome = deferred
		b.hold(i)
	case b.c.Kind == KindExternal:
		it.outcome = external
		b.hold(i)
	default:
		return true
	}
	return false
}

// isHeld reports whether the item comes after one that holds its key up. One that comes before may be run again after it: see again.
func (b *batch) isHeld(i int) bool {
	by, held := b.held[b.items[i].event.Key]
	return held && by < i
}

// hold has the events of the item's key that come after it wait, also one that was run before it, and failed.
func (b *batch) hold(i int) {
	key := b.items[i].event.Key
	by, held := b.held[key]
	if !b.c.Ordered || held && by < i {
		return
	}
	b.held[key] = i
	for n := i + 1; held && n < len(b.items); n++ {
		if it := &b.items[n]; it.event.Key == key && (it.outcome == failed || it.outcome == external || it.outcome == deferred) {
			it.outcome, it.err = parked, nil
		}
	}
}

// again has what comes after an item decided anew: what had failed there may not fail after what is now to run before it.
func (b *batch) again(after int) {
	clear(b.held)
	for i := range b.items {
		it := &b.items[i]
		switch {
		case it.waits:
			b.held[it.event.Key] = unknown
		case it.outcome == suspect:
			b.hold(i)
		case it.outcome == failed || it.outcome == external || it.outcome == deferred:
			if i > after {
				it.outcome, it.err = pending, nil
				continue
			}
			b.hold(i)
		case it.outcome == parked && i > after:
			it.outcome = pending
		}
	}
}

func (b *batch) fail(i int, err error) {
	b.items[i].outcome, b.items[i].err = failed, err
	b.hold(i)
}

// guard turns a panic of a handler into an error with its stack.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}
