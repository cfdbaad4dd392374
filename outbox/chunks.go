package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
)

const (
	// drainChunk is how many events share a savepoint: one that fails costs its chunk a second run, and not the batch.
	drainChunk = 16
	// drainBlame is how many events of a chunk are taken at their statement's word. When still more fail, each of
	// the chunk's is run alone.
	drainBlame = 3
)

// chunks runs the handlers of a batch, under a savepoint for each few of them. Statements that handlers queue travel
// in one pipeline, all chunks together; when one fails, what came before its chunk stands, the server has run nothing
// of what came after, and the chunk and all that follows is run again without the event that failed.
type chunks struct {
	*batch
	next  int // the item whose turn it is
	open  int // the first item of the savepoint that is open, or unknown
	count int // calls of handlers under it

	unsent   int // events whose statements are still here
	soloTo   int // items before this one run alone
	smallTo  int // items before this one are given to a set-based handler in small sets
	failedAt int // the chunk that failed last, and how often
	failures int
}

func newChunks(b *batch) *chunks {
	c := &chunks{batch: b, open: unknown, failedAt: unknown}
	if b.careful {
		c.soloTo = len(b.items)
		b.tx.single = true
	}
	return c
}

// handle runs handlers until none is left, the batch's time is up, or its handlers have appended to enough keys. It
// leaves the last statements unsent, for them to travel with what ends the batch.
func (c *chunks) handle(ctx context.Context) error {
	for c.next < len(c.items) {
		if !c.decide(c.next) {
			c.next++
			continue
		}
		again, err := c.call(ctx)
		if err != nil {
			return err
		} else if again {
			continue
		}
		enough := c.late() || len(c.keys) >= drainKeys
		if c.count == drainChunk || c.c.set != nil || c.next <= c.soloTo || enough {
			if again, err = c.end(ctx, enough); err != nil {
				return err
			} else if again {
				continue
			}
		}
		if enough {
			return nil
		}
	}
	if _, err := c.end(ctx, true); err != nil {
		return err
	}
	if c.next < len(c.items) {
		return c.handle(ctx) // the end of the last chunk failed
	}
	return nil
}

// call runs the handler once: for the next item or, if it is set-based, for the next few. It reports whether the items
// are to be looked at again.
func (c *chunks) call(ctx context.Context) (again bool, err error) {
	first := c.next
	if c.open == unknown {
		c.open, c.count = first, 0
		c.items[first].marks = len(c.tx.appended)
		c.tx.belongs(owner{item: first})
		c.tx.batch.Queue("SAVEPOINT chunk")
	}
	members, next := c.unit(first)
	queued, sent, appended := c.tx.batch.Len(), c.tx.sent, len(c.tx.appended)
	c.tx.belongs(owner{item: first, handler: true})
	c.tx.nested = false
	failpoint.At(failpoint.DrainHandlerBefore)
	err = c.invoke(ctx, members)
	failpoint.At(failpoint.DrainHandlerAfter)
	c.tx.belongs(owner{item: c.open})
	switch {
	case c.tx.failure != nil:
		return true, c.recover(ctx)
	case err == nil:
		for _, i := range members {
			c.items[i].outcome = applied
		}
		for _, e := range c.tx.appended[appended:] {
			c.keys[e.Key] = true
		}
		c.next = next
		c.count++
		c.unsent += len(members)
		return false, nil
	case transient(err) || ctx.Err() != nil:
		c.at = first
		return false, err
	case c.tx.sent == sent && len(members) == 1:
		// Nothing of this one has left yet: it is as if it had not been.
		c.tx.drop(queued)
		c.tx.appended = c.tx.appended[:appended]
		c.fail(first, err)
		return true, nil
	}
	if c.tx.sent == sent {
		// Nor has the savepoint, perhaps.
		if err := c.tx.flush(ctx); err != nil {
			return true, c.recover(ctx)
		}
	}
	c.tx.failure = &failure{owner: owner{item: first, handler: true}, err: err}
	return true, c.recover(ctx)
}

// unit returns the items to give to the handler at once, and which comes after them.
func (c *chunks) unit(first int) (members []int, next int) {
	size := 1
	switch {
	case c.c.set == nil || first < c.soloTo:
	case first < c.smallTo:
		size = drainChunk
	default:
		size = len(c.items)
	}
	members = make([]int, 0, size)
	for next = first; next < len(c.items) && len(members) < size && c.items[next].run == c.items[first].run; next++ {
		if c.decide(next) {
			c.items[next].chunk = c.open
			members = append(members, next)
		}
	}
	return members, next
}

// invoke calls the handler. A panic is a failure, with its stack.
func (c *chunks) invoke(ctx context.Context, members []int) error {
	first := &c.items[members[0]]
	if c.c.set == nil {
		ctx = withDelivery(ctx, c.c, first, c.tx)
		if c.span != nil || first.trace != nil {
			ctx = c.startEvent(ctx, first)
		}
		ctx, cancel := context.WithTimeout(ctx, c.c.Timeout)
		defer cancel()
		return guard(func() error { return c.c.tx(ctx, c.tx, first, 1) })
	}
	events := make([]*item, len(members))
	for n, i := range members {
		events[n] = &c.items[i]
	}
	ctx, cancel := context.WithTimeout(c.startSet(withSet(ctx, c.c, c.tx, first.muted), events), c.c.Timeout)
	defer cancel()
	return guard(func() error { return c.c.set(ctx, c.tx, events, 1) })
}

// end releases the savepoint that is open, if one is, and sends what is queued when there is enough of it, unless
// something else is about to be queued that can travel with it. It reports whether items are to be looked at again.
func (c *chunks) end(ctx context.Context, more bool) (again bool, err error) {
	if c.open != unknown {
		// A result that somebody waits for may be no success: until it is known, the savepoint is needed.
		if c.tx.waits() {
			if again, err := c.send(ctx); again || err != nil {
				return again, err
			}
		}
		c.tx.belongs(owner{item: c.open})
		c.tx.batch.Queue("RELEASE SAVEPOINT chunk")
		c.open = unknown
	}
	switch {
	case c.next <= c.soloTo:
		return c.send(ctx)
	case !more && c.unsent >= c.pace.segment():
		// The next handlers run while the server works on this.
		if c.tx.land(); c.tx.failure != nil {
			return true, c.recover(ctx)
		}
		began, n := time.Now(), c.unsent
		c.tx.fly(ctx, func() { c.pace.took(n, time.Since(began)) })
		c.unsent = 0
	}
	return false, nil
}

func (c *chunks) send(ctx context.Context) (again bool, err error) {
	began, n := time.Now(), c.unsent
	if err := c.tx.flush(ctx); err != nil {
		return true, c.recover(ctx)
	}
	c.pace.took(n, time.Since(began))
	c.unsent = 0
	return false, nil
}

// recover answers the failure of a statement. The transaction is rolled back to the beginning of that statement's
// chunk; then either the event to blame is known, or all of the chunk are run again in smaller groups.
func (c *chunks) recover(ctx context.Context) error {
	c.tx.land()
	f := c.tx.failure
	c.tx.failure = nil
	switch {
	case transient(f.err) || ctx.Err() != nil:
		if f.handler {
			c.at = f.item
		}
		return f.err
	case f.unclear && !c.careful:
		return fmt.Errorf("%w: %w", errUnclear, f.err)
	case f.item == unknown && sqlState(f.err) == "23505" && !c.probe:
		return fmt.Errorf("%w: %w", errTwice, f.err)
	case f.item == unknown:
		return f.err
	}
	c.tx.take()
	if _, err := c.tx.Tx.Exec(ctx, "ROLLBACK TO SAVEPOINT chunk; RELEASE SAVEPOINT chunk"); err != nil {
		return errors.Join(f.err, err)
	}
	start := c.items[f.item].chunk
	c.tx.appended = c.tx.appended[:c.items[start].marks]
	var members []int
	for i := start; i < len(c.items); i++ {
		it := &c.items[i]
		if it.chunk == start && (it.outcome == applied || it.outcome == pending) {
			members = append(members, i)
		}
		if it.chunk = unknown; it.outcome == applied {
			it.outcome = pending
		}
	}
	if c.failedAt != start {
		c.failedAt, c.failures = start, 0
	}
	c.failures++
	// In a transaction that an earlier statement has broken, every statement fails.
	known := f.handler && c.c.set == nil && sqlState(f.err) != "25P02"
	blamed := start - 1
	switch last := slices.Max(append(members, f.item)); {
	case len(members) <= 1, known:
		blamed = f.item
		c.fail(f.item, f.err)
		if c.failures >= drainBlame {
			c.soloTo = max(c.soloTo, last+1)
		}
	case c.c.set != nil && len(members) > drainChunk:
		c.smallTo = last + 1
	default:
		c.soloTo = last + 1
	}
	c.again(blamed)
	clear(c.keys)
	for _, e := range c.tx.appended {
		c.keys[e.Key] = true
	}
	c.next, c.open, c.unsent = start, unknown, 0
	c.pace.broke()
	return nil
}
