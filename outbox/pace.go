package outbox

import (
	"context"
	"sync"
	"time"
)

const (
	// drainSegment is how many events travel together at most: while the server works on them, the handlers of the next
	// ones run. If theirs take long, as many as take about drainSegmentTime. A failure makes it one
	// chunk, and each success a few more: after a failure, the handlers of those that travelled behind it run again.
	drainSegment     = 96
	drainSegmentTime = 500 * time.Millisecond
	// paceBacklog is how long after a large batch there is a backlog.
	paceBacklog = time.Second
	// paceSlow is how long the statements of an event take at least where it is not for the database that a consumer is slow: to have fewer of
	// its lanes drained would slow it down, and help nobody.
	paceSlow = 5 * time.Millisecond
	// writersEvery is how often it is asked, beside a backlog, whether somebody writes, and writersFor how long the answer holds.
	writersEvery = 500 * time.Millisecond
	writersFor   = 2 * time.Second
)

// pace is what the engine has learned of a consumer. It is a matter of speed alone, and may be lost.
type pace struct {
	update  sync.Mutex
	each    time.Duration // how long the statements of one event take
	clean   int           // events that may travel together, as far as failures tell
	passing bool          // events that it does not want lie between those it does
	largeAt time.Time     // the last batch that told of a backlog
	fullAt  time.Time     // the last batch of what is ahead of a cursor behind which there was more
}

func (e *Engine) paceOf(consumer string) *pace {
	p, _ := e.paces.LoadOrStore(consumer, &pace{clean: drainSegment})
	return p.(*pace)
}

// HasBacklog reports whether a drain of the consumer, in this process, had a large batch to do, or more than one, within the last
// second. It is safe to call concurrently.
func (e *Engine) HasBacklog(consumer string) bool {
	p := e.paceOf(consumer)
	p.update.Lock()
	defer p.update.Unlock()
	return time.Since(p.largeAt) < paceBacklog
}

// GivesWay reports whether drains of the consumer, in this process, should leave the database to those who write now: there is a backlog,
// so that what it drains has waited anyway, while producers write. What waited behind a hold is none: its end is somebody's repair. It is safe to call concurrently, and asks nobody: Drain finds it out.
func (e *Engine) GivesWay(consumer string) bool {
	p := e.paceOf(consumer)
	p.update.Lock()
	defer p.update.Unlock()
	return time.Since(p.fullAt) < paceBacklog && p.each < paceSlow && time.Since(time.Unix(0, e.writtenAt.Load())) < writersFor
}

// lookForWriters notes whether somebody writes, now and then. Where it cannot be found out, drains go on as fast as they can.
func (e *Engine) lookForWriters(ctx context.Context) {
	last, now := e.lookedAt.Load(), time.Now()
	if now.Sub(time.Unix(0, last)) < writersEvery || !e.lookedAt.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writersEvery)
	defer cancel()
	if fresh, err := e.q.LogIsFresh(ctx, e.db(e.pool)); err != nil {
		e.log.Debug("drain: ask whether somebody writes", "error", err)
	} else if fresh {
		e.writtenAt.Store(time.Now().UnixNano())
	}
}

// segment is how many events may travel together.
func (p *pace) segment() int {
	p.update.Lock()
	defer p.update.Unlock()
	return max(drainChunk, min(p.clean, int(drainSegmentTime/max(1, p.each))))
}

// took notes that the statements of n events went through, and in which time; broke that those of one failed.
func (p *pace) took(n int, took time.Duration) {
	if n < drainChunk {
		return
	}
	p.update.Lock()
	defer p.update.Unlock()
	p.each = (3*p.each + took/time.Duration(n)) / 4
	p.clean = min(p.clean+drainChunk/4, drainSegment)
}

func (p *pace) broke() {
	p.update.Lock()
	defer p.update.Unlock()
	p.clean = drainChunk
}

// large notes that a batch told of a backlog, and whether there was more behind it.
func (p *pace) large(full bool) {
	p.update.Lock()
	defer p.update.Unlock()
	p.largeAt = time.Now()
	if full {
		p.fullAt = p.largeAt
	}
}

// passed notes whether there was something to pass.
func (p *pace) passed(something bool) {
	p.update.Lock()
	defer p.update.Unlock()
	p.passing = something
}

func (p *pace) passes() bool {
	p.update.Lock()
	defer p.update.Unlock()
	return p.passing
}
