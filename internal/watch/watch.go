// Package watch lets any number of goroutines wait for things to come about in the database, at the price of one look after
// the other for all of them together.
package watch

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// spacing is the least time from the end of a look to the next: what is asked for meanwhile goes along. A look that took
	// longer than this is followed by a pause as long as itself, so that waiting never takes more than half a connection.
	spacing = 5 * time.Millisecond
	// shortRetry and longRetry bound the pause after a look that failed, which doubles.
	shortRetry = 50 * time.Millisecond
	longRetry  = time.Second
)

// Group is a set of waits on one database. While somebody waits, and no longer, a goroutine of its own looks for all of them.
// The fields are set before the first Wait and not changed. It is safe for concurrent use.
type Group[M any] struct {
	// Look asks for all that it is given, and sets Done (and Err) of those that are decided. It is called by one goroutine
	// at a time. Its context ends when nobody waits any more.
	Look func(ctx context.Context, asked []*Asked[M]) error
	// Passing says of an error of Look that it is worth trying again. Every other ends the waits that were looked for, with it.
	Passing func(error) bool
	// First and Last bound the pause between two looks for the same thing, which doubles.
	First, Last time.Duration

	mu      sync.Mutex
	waits   map[uuid.UUID][]*Asked[M]
	running bool
	wake    chan struct{}      // buffered: the goroutine is to think again
	sleeps  time.Time          // until when, unless it is woken
	rest    time.Time          // before this it looks for nothing
	retry   time.Duration      // the pause after the last failure, or 0
	abandon context.CancelFunc // of the look under way
}

// Asked is one thing that somebody waits for. Look alone may use the exported fields.
type Asked[M any] struct {
	// ID and About say what it is.
	ID    uuid.UUID
	About string
	// Memo is what looks remember of it; zero at first.
	Memo M
	// Done says that it has come about or, with an Err, that it never will.
	Done bool
	Err  error

	waiters int
	pause   time.Duration
	due     time.Time
	hinted  bool // since it was last taken up
	over    chan struct{}
}

// Wait returns when a look finds the thing decided: nil, or the error why it will not come about; or the error of a look that
// is not passing. When ctx ends first, it returns its error.
func (g *Group[M]) Wait(ctx context.Context, id uuid.UUID, about string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a := g.join(id, about)
	select {
	case <-a.over:
		return a.Err
	case <-ctx.Done():
	}
	g.leave(a)
	select {
	case <-a.over: // at the last moment
		return a.Err
	default:
		return ctx.Err()
	}
}

// Hint has what is waited for under these ids looked for at once.
func (g *Group[M]) Hint(ids ...uuid.UUID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range ids {
		for _, a := range g.waits[id] {
			a.hinted = true
			g.soon(a)
		}
	}
}

// soon makes a thing due, and wakes the goroutine if it would sleep beyond that. The caller has the lock.
func (g *Group[M]) soon(a *Asked[M]) {
	a.due, a.pause = time.Now(), 0
	if g.sleeps.After(a.due) && g.sleeps.After(g.rest) {
		g.think()
	}
}

func (g *Group[M]) think() {
	g.sleeps = time.Time{}
	select {
	case g.wake <- struct{}{}:
	default: // it is awake already
	}
}

func (g *Group[M]) join(id uuid.UUID, about string) *Asked[M] {
	g.mu.Lock()
	defer g.mu.Unlock()
	var a *Asked[M]
	for _, other := range g.waits[id] {
		if other.About == about {
			a = other
		}
	}
	if a == nil {
		if g.waits == nil {
			g.waits, g.wake = map[uuid.UUID][]*Asked[M]{}, make(chan struct{}, 1)
		}
		a = &Asked[M]{ID: id, About: about, over: make(chan struct{})}
		g.waits[id] = append(g.waits[id], a)
	}
	a.waiters++
	g.soon(a)
	if !g.running {
		g.running, g.retry = true, 0
		go g.run()
	}
	return a
}

func (g *Group[M]) leave(a *Asked[M]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.waiters--; a.waiters > 0 {
		return
	}
	g.forget(a)
	if len(g.waits) == 0 {
		if g.abandon != nil {
			g.abandon()
		}
		g.think() // and so it ends
	}
}

func (g *Group[M]) forget(a *Asked[M]) {
	others := g.waits[a.ID]
	for i, other := range others {
		if other == a {
			others[i] = others[len(others)-1]
			others = others[:len(others)-1]
			break
		}
	}
	if g.waits[a.ID] = others; len(others) == 0 {
		delete(g.waits, a.ID)
	}
}

func (g *Group[M]) run() {
	for {
		ctx, asked, more := g.next()
		if !more {
			return
		}
		if len(asked) > 0 {
			began := time.Now()
			err := g.Look(ctx, asked)
			g.looked(asked, time.Since(began), err)
			continue
		}
		g.sleep()
	}
}

// next returns what is to be looked for now: what is due, and what has half of its pause behind it, so that waits that began
// at different times come to share their looks. Nothing: the goroutine sleeps first. When nobody waits, there is no more to do.
func (g *Group[M]) next() (ctx context.Context, asked []*Asked[M], more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waits) == 0 {
		g.running = false
		return nil, nil, false
	}
	now := time.Now()
	if g.sleeps = g.rest; now.Before(g.rest) {
		return nil, nil, true
	}
	first := now.Add(g.Last)
	for _, of := range g.waits {
		for _, a := range of {
			if !a.due.After(now.Add(a.pause / 2)) {
				asked = append(asked, a)
			}
			if a.due.Before(first) {
				first = a.due
			}
		}
	}
	if first.After(now) {
		g.sleeps = first
		return nil, nil, true
	}
	for _, a := range asked {
		a.hinted = false
	}
	ctx, g.abandon = context.WithCancel(context.Background())
	return ctx, asked, true
}

// looked ends the waits that are decided and says when the others are looked for again.
func (g *Group[M]) looked(asked []*Asked[M], took time.Duration, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.abandon()
	g.abandon = nil
	now := time.Now()
	g.rest = now.Add(max(spacing, took))
	passing := err != nil && g.Passing(err)
	if g.retry = 2 * g.retry; !passing {
		g.retry = 0
	} else {
		g.retry = min(max(g.retry, shortRetry), longRetry)
		g.rest = now.Add(g.retry)
	}
	for _, a := range asked {
		if err != nil && !passing && !a.Done {
			a.Done, a.Err = true, err
		}
		switch {
		case a.waiters == 0: // all have left
		case a.Done:
			g.forget(a)
			close(a.over)
		case passing || a.hinted:
			a.due = now
		default:
			a.pause = min(max(2*a.pause, g.First), g.Last)
			a.due = now.Add(a.pause)
		}
	}
}

func (g *Group[M]) sleep() {
	g.mu.Lock()
	pause := time.Until(g.sleeps)
	g.mu.Unlock()
	if pause <= 0 {
		return
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.wake:
	}
}
