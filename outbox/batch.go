package outbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// drainChunk is how many events share a savepoint: one that fails costs its chunk a second run, and not the batch.
const drainChunk = 16

// outcome is what became of an event in a batch.
type outcome int

const (
	pending   outcome = iota
	applied           // the handler's work is in the transaction
	duplicate         // it had been processed before
	failed            // the handler failed: it becomes a hold
	suspect           // it is taken out of the lane unrun
	external          // it gets a job of its own
	parked            // it waits behind an event of its key
)

func (o outcome) String() string {
	return [...]string{"pending", "applied", "duplicate", "failed", "suspect", "external", "waiting"}[o]
}

type item struct {
	event     *stored
	processed bool
	outcome   outcome
	err       error
}

// batch is one transaction of a drain.
type batch struct {
	*drain
	tx       *handlerTx
	deadline time.Time

	held map[string]bool // keys that an event of this batch holds up
	keys map[string]bool // keys that handlers appended to

	released     bool // the batch ran what waited for settled holds
	blamed       bool // its first event is escalated because processes died with it
	settledHolds []outboxdb.DrainSettledRow
	lift         map[string]int
	full         bool // there may be more right behind
	wakes        bool // the relay has something to do
	items        []item
	counts       [parked + 1]int
}

func newItem(r outboxdb.DrainWindowRow) item {
	i := item{processed: r.Processed, event: &stored{
		ID: r.ID, Pos: r.Pos, Lane: r.Lane, Type: r.Type, Key: r.Key, Data: r.Data, CorrelationID: r.CorrelationID,
		CausationID: r.CausationID, TraceParent: r.Traceparent, Source: r.Source, SchemaVersion: r.SchemaVersion,
		OccurredAt: r.OccurredAt,
	}}
	if r.Held {
		i.outcome = parked
	}
	return i
}

// run gives each item an outcome, as far as it gets within the batch's bounds, and returns how many have one.
func (b *batch) run(ctx context.Context, items []item) (int, error) {
	b.held, b.keys = map[string]bool{}, map[string]bool{}
	seen := make(map[uuid.UUID]bool, len(items))
	for i := range items {
		it := &items[i]
		// The same id may stand twice in one batch: its row in processed_events is not written yet.
		it.processed = it.processed || seen[it.event.ID]
		seen[it.event.ID] = true
		held := b.c.Ordered && it.outcome == parked
		if held {
			b.held[it.event.Key] = true
		}
		switch {
		case it.processed:
			it.outcome = duplicate
		case !held:
			it.outcome = pending
		}
	}
	if b.escalate && len(items) > 0 {
		if it := &items[0]; it.outcome == pending {
			it.outcome, it.err = suspect, fmt.Errorf("taken out of its lane: %w", b.cause)
			b.held[it.event.Key] = b.c.Ordered
		}
	}
	for from := 0; from < len(items); {
		b.took = min(from+drainChunk, len(items))
		n, err := b.chunk(ctx, items[from:b.took], from)
		if err != nil {
			return 0, err
		}
		if from += n; b.late() || len(b.keys) >= drainKeys {
			b.took = from
			return from, nil
		}
	}
	return len(items), nil
}

func (b *batch) late() bool { return time.Now().After(b.deadline) }

// chunk runs some items under one savepoint; when one of them fails, all of them again under one each. It stops when
// the batch's time is up and returns how many it got to, at least one. start is the first one's place in the batch.
func (b *batch) chunk(ctx context.Context, items []item, start int) (int, error) {
	var own []int
	for i := range items {
		if b.decide(&items[i]) {
			own = append(own, i)
		}
	}
	if len(own) == 0 {
		return len(items), nil
	}
	mark := len(b.tx.appended)
	b.tx.batch.Queue("SAVEPOINT chunk")
	var err error
	for n, i := range own {
		b.at = start + i
		if err = b.handle(ctx, &items[i]); err != nil {
			break
		}
		if n+1 < len(own) && b.late() {
			own, items = own[:n+1], items[:own[n+1]]
			break
		}
	}
	if err == nil {
		b.at = unknown // which of them a queued statement belongs to
		b.tx.batch.Queue("RELEASE SAVEPOINT chunk")
		err = b.tx.flush(ctx)
	}
	if err == nil {
		for _, i := range own {
			items[i].outcome = applied
		}
		b.noteKeys(mark)
		return len(items), nil
	}
	if transient(err) || ctx.Err() != nil {
		return 0, err
	}
	if err := b.rollback(ctx, mark); err != nil {
		return 0, err
	}
	for i := range items {
		b.at = start + i
		if it := &items[i]; b.decide(it) {
			if err := b.alone(ctx, it); err != nil {
				return 0, err
			}
			if b.late() {
				return i + 1, nil
			}
		}
	}
	return len(items), nil
}

// alone runs one item under a savepoint of its own and settles its outcome.
func (b *batch) alone(ctx context.Context, it *item) error {
	mark := len(b.tx.appended)
	b.tx.batch.Queue("SAVEPOINT chunk")
	err := b.handle(ctx, it)
	if err == nil {
		// Sent also when the handler sent nothing: it tells a transaction that the handler broke and said nothing of.
		b.tx.batch.Queue("RELEASE SAVEPOINT chunk")
		err = b.tx.flush(ctx)
	}
	switch {
	case err == nil:
		it.outcome = applied
		b.noteKeys(mark)
		return nil
	case transient(err) || ctx.Err() != nil:
		return err
	}
	it.outcome, it.err = failed, err
	b.held[it.event.Key] = b.c.Ordered
	return b.rollback(ctx, mark)
}

// decide settles what needs no handler, and reports whether the item's handler is to run.
func (b *batch) decide(it *item) bool {
	switch {
	case it.outcome != pending:
		return false
	case b.c.Ordered && b.held[it.event.Key]:
		it.outcome = parked
	case b.c.Kind == KindExternal:
		it.outcome = external
		b.held[it.event.Key] = b.c.Ordered
	default:
		return true
	}
	return false
}

// rollback undoes the chunk. What it had queued and not sent never happened, nor what it appended.
func (b *batch) rollback(ctx context.Context, mark int) error {
	unsent := b.tx.take()
	b.tx.appended = b.tx.appended[:mark]
	// The savepoint itself may be among the unsent: then nothing of the chunk reached the server.
	for _, q := range unsent.QueuedQueries {
		if q.SQL == "SAVEPOINT chunk" {
			return nil
		}
	}
	_, err := b.tx.Tx.Exec(ctx, "ROLLBACK TO SAVEPOINT chunk; RELEASE SAVEPOINT chunk")
	return err
}

func (b *batch) noteKeys(mark int) {
	for _, e := range b.tx.appended[mark:] {
		b.keys[e.Key] = true
	}
}

// handle calls the handler. A panic is a failure, with its stack.
func (b *batch) handle(ctx context.Context, it *item) error {
	ctx, cancel := context.WithTimeout(withDelivery(ctx, it.event, b.tx), b.c.Timeout)
	defer cancel()
	return guard(func() error { return b.c.tx(ctx, b.tx, it.event, 1) })
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

// write records what became of the items. It appends last: the locks of the appended keys are held until the commit.
func (b *batch) write(ctx context.Context, items []item, waited bool) error {
	b.items = items
	db := b.db(b.tx)
	var (
		processed []uuid.UUID
		parks     = outboxdb.WaitingInsertParams{Consumer: b.c.Name, Lane: b.lane}
		gone      = outboxdb.WaitingDeleteParams{Consumer: b.c.Name}
		held      []*item
	)
	for i := range items {
		it := &items[i]
		b.counts[it.outcome]++
		if it.outcome == parked {
			if !waited {
				parks.Keys = append(parks.Keys, it.event.Key)
				parks.Positions = append(parks.Positions, it.event.Pos)
				parks.EventIds = append(parks.EventIds, it.event.ID)
			}
			continue
		}
		if waited {
			gone.Keys, gone.Positions = append(gone.Keys, it.event.Key), append(gone.Positions, it.event.Pos)
		}
		switch it.outcome {
		case applied:
			processed = append(processed, it.event.ID)
		case duplicate:
			if err := b.logAttempt(ctx, db, b.c.Name, it.event.ID, 1, "duplicate", nil); err != nil {
				return err
			}
		case failed, suspect, external:
			held = append(held, it)
		case pending, parked:
			return errors.New("outbox: an event was left without an outcome")
		}
	}
	if len(processed) > 0 {
		if err := b.q.ProcessedInsert(ctx, db, outboxdb.ProcessedInsertParams{Consumer: b.c.Name, EventIds: processed}); err != nil {
			return err
		}
	}
	if len(parks.Keys) > 0 {
		if err := b.q.WaitingInsert(ctx, db, parks); err != nil {
			return err
		}
	}
	if len(gone.Keys) > 0 {
		if err := b.q.WaitingDelete(ctx, db, gone); err != nil {
			return err
		}
	}
	if err := b.writeHolds(ctx, db, held); err != nil {
		return err
	}
	if waited {
		ids := make([]uuid.UUID, len(b.settledHolds))
		for i, h := range b.settledHolds {
			ids[i] = h.EventID
		}
		if err := b.q.HoldLift(ctx, db, outboxdb.HoldLiftParams{Consumer: b.c.Name, EventIds: ids}); err != nil {
			return err
		}
	}
	if b.blamed && len(items) > 0 && items[0].outcome == suspect {
		if err := b.q.DrainForgive(ctx, db, outboxdb.DrainForgiveParams{Consumer: b.c.Name, Lane: b.lane}); err != nil {
			return err
		}
	}
	b.wakes = len(b.tx.appended) > 0
	return b.schema.write(ctx, b.tx.Tx, b.tx.appended)
}
