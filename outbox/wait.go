package outbox

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
	"github.com/pgoutbox/pgoutbox/internal/watch"
)

const (
	// waitFirst and waitLast bound the pause between two looks for the same event, which doubles.
	waitFirst = 10 * time.Millisecond
	waitLast  = 250 * time.Millisecond
	// waitSlice is how many events one statement asks for.
	waitSlice = 1000
	// waitStatement and waitLook bound a look's statements, by the server, and, some more, the whole look, by the client: a
	// connection to a server that does not answer is given up.
	waitStatement = 5 * time.Second
	waitLook      = 10 * time.Second
)

// NotProcessedError says that a consumer will not process an event by itself.
type NotProcessedError struct {
	EventID  uuid.UUID
	Consumer string
	// State is dead, skipped or dismissed, as in DeliveryStatus.
	State string
}

func (e *NotProcessedError) Error() string {
	return fmt.Sprintf("outbox: event %s is %s for consumer %s", e.EventID, e.State, e.Consumer)
}

// Wait returns nil once each of the consumers has processed the event: their work is committed, and whoever reads after Wait
// finds it. Without consumers it waits for the event to be relayed, and for all that subscribe to it then, which may be none.
//
// An event that is not there is waited for: it may be on its way, and its transaction may not be committed yet. So is one
// whose transaction was rolled back: give ctx an end.
//
// Errors: a *NotProcessedError as soon as the event is dead, skipped or dismissed for one of the consumers (an operator may
// replay a dead one, but that takes longer than it makes sense to wait); ErrNotFound when a consumer does not exist or does
// not subscribe to the event, as soon as the event is relayed; and ctx's own, wrapped, when that ends first. While the
// database cannot be reached, or is busy, Wait waits on.
//
// A consumer is named as it is now, also if it had another name when it processed the event. A backfill that begins
// after a consumer has processed the event is not waited for; in one that reaches an event before that, the event counts as
// processed when the backfill has.
//
// It works whatever process does the work, and is meant for thousands that wait at the same time: while anybody waits, one
// goroutine for each pool and schema asks for all of them in one round trip, soon at first and after a while every 250 ms.
// It holds one connection of the pool while it asks and none in between. What is processed in this process is found at once.
// Closing the pool ends the waits on it with an error.
func Wait(ctx context.Context, pool *pgxpool.Pool, eventID uuid.UUID, consumers ...string) error {
	return Schema("").Wait(ctx, pool, eventID, consumers...)
}

// Wait is the package's Wait for the tables in this schema.
func (s Schema) Wait(ctx context.Context, pool *pgxpool.Pool, eventID uuid.UUID, consumers ...string) error {
	for _, c := range consumers {
		if !nameForm.MatchString(c) {
			return fmt.Errorf("%w: no consumer can have the name %q", ErrNotFound, c)
		}
	}
	names := slices.Compact(slices.Sorted(slices.Values(consumers)))
	group, leave := waits.of(waitKey{pool, s})
	defer leave()
	if err := group.Wait(ctx, eventID, strings.Join(names, " ")); err != nil {
		return fmt.Errorf("outbox: wait for event %s: %w", eventID, err)
	}
	return nil
}

// waits are the groups that somebody waits in.
var waits = waitGroups{groups: map[waitKey]*waitGroup{}}

type waitGroups struct {
	waiting atomic.Int64
	mu      sync.RWMutex
	groups  map[waitKey]*waitGroup
}

type waitKey struct {
	pool   *pgxpool.Pool
	schema Schema
}

type waitGroup struct {
	watch.Group[place]
	waiting int
}

// place is where an event is in the log, or above which position it is if it is there at all.
type place struct {
	lane  int16
	pos   int64 // 0: not known
	kind  string
	above int64
}

// of returns the group of a pool and schema, and a func that leaves it: an empty one is forgotten, and the pool with it.
func (w *waitGroups) of(k waitKey) (*waitGroup, func()) {
	w.waiting.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.groups[k]
	if g == nil {
		g = &waitGroup{Group: watch.Group[place]{Look: k.look, Passing: transient, First: waitFirst, Last: waitLast}}
		w.groups[k] = g
	}
	g.waiting++
	return g, func() {
		w.waiting.Add(-1)
		w.mu.Lock()
		defer w.mu.Unlock()
		if g.waiting--; g.waiting == 0 {
			delete(w.groups, k)
		}
	}
}

// wakeWaiting has the events looked for that somebody in this process waits for. Where they were processed does not matter:
// it is the look that decides. With nobody waiting it costs a load.
func wakeWaiting(ids ...uuid.UUID) {
	if waits.waiting.Load() == 0 {
		return
	}
	waits.mu.RLock()
	defer waits.mu.RUnlock()
	for _, g := range waits.groups {
		g.Hint(ids...)
	}
}

// wakeWaiting does so for those that the batch, which is committed, has dealt with.
func (b *batch) wakeWaiting() {
	if waits.waiting.Load() == 0 {
		return
	}
	ids := make([]uuid.UUID, 0, b.done)
	for i := range b.items[:b.done] {
		switch b.items[i].outcome {
		case applied, duplicate, failed:
			ids = append(ids, b.items[i].event.ID)
		}
	}
	wakeWaiting(ids...)
}

// look asks for all of them, in one transaction and one round trip.
func (k waitKey) look(ctx context.Context, asked []*watch.Asked[place]) error {
	conn, err := k.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	// From here on it goes on also if nobody waits any more: a cancelled statement costs its connection.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), waitLook)
	defer cancel()
	tx, err := pipelineOn(ctx, conn, "begin isolation level read committed read only", waitStatement, waitStatement, func(b *pgx.Batch) {
		questions(asked, func(q outboxdb.WaitStatesParams, of []*watch.Asked[place]) {
			b.Queue(k.schema.sql(outboxdb.WaitStates), q.EventIds, q.Consumers, q.Lanes, q.Positions, q.Types, q.Above).Query(func(rows pgx.Rows) error {
				states, err := pgx.CollectRows(rows, pgx.RowToStructByPos[outboxdb.WaitStatesRow])
				if err == nil {
					answer(states, q.Consumers, of)
				}
				return err
			})
		})
		b.Queue("commit")
	})
	if err != nil {
		// A server that took over may have lost the end of the log: what was seen of it says nothing.
		for _, a := range asked {
			a.Memo = place{}
		}
		return err
	}
	tx.commits()
	tx.end()
	return nil
}

// questions puts what is asked into slices, an event and a consumer a row; of says which of them a row is for. All rows of one
// that is asked are in the same slice.
func questions(asked []*watch.Asked[place], send func(q outboxdb.WaitStatesParams, of []*watch.Asked[place])) {
	var q outboxdb.WaitStatesParams
	var of []*watch.Asked[place]
	for i, a := range asked {
		for _, consumer := range strings.Split(a.About, " ") { // none: one row, for all
			q.EventIds, q.Consumers = append(q.EventIds, a.ID), append(q.Consumers, consumer)
			q.Lanes, q.Positions = append(q.Lanes, a.Memo.lane), append(q.Positions, a.Memo.pos)
			q.Types, q.Above = append(q.Types, a.Memo.kind), append(q.Above, a.Memo.above)
			of = append(of, a)
		}
		if len(of) >= waitSlice || i == len(asked)-1 {
			send(q, of)
			q, of = outboxdb.WaitStatesParams{}, nil
		}
	}
}

// answer decides what can be decided.
func answer(states []outboxdb.WaitStatesRow, consumers []string, of []*watch.Asked[place]) {
	open := map[*watch.Asked[place]]bool{}
	for _, s := range states {
		a := of[s.N-1]
		a.Memo = place{lane: s.Lane, pos: s.Pos, kind: s.Type, above: s.Head}
		err := error(nil)
		switch relayed := s.Pos > 0; {
		case s.Processed:
		case s.Letter == "dead" || s.Letter == "skipped" || s.Letter == "dismissed":
			err = &NotProcessedError{EventID: a.ID, Consumer: s.Consumer, State: s.Letter}
		case relayed && consumers[s.N-1] == "" && s.Consumer == "": // nobody subscribes to it
		case relayed && !s.Subscribes:
			err = fmt.Errorf("%w: consumer %s does not exist, does not subscribe to %s or began after the event", ErrNotFound, consumers[s.N-1], s.Type)
		default:
			open[a] = true
		}
		if a.Err == nil {
			a.Err = err
		}
	}
	for _, a := range of {
		a.Done = a.Err != nil || !open[a]
	}
}
