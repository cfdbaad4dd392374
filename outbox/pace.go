package outbox

import (
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
)

// pace is what the engine has learned of a consumer. It is a matter of speed alone, and may be lost.
type pace struct {
	update  sync.Mutex
	each    time.Duration // how long the statements of one event take
	clean   int           // events that may travel together, as far as failures tell
	passing bool          // events that it does not want lie between those it does
	largeAt time.Time     // the last batch that told of a backlog
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

// large notes that a batch told of a backlog.
func (p *pace) large() {
	p.update.Lock()
	defer p.update.Unlock()
	p.largeAt = time.Now()
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
