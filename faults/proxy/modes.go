package proxy

import (
	"math/rand/v2"
	"time"
)

// modes is what is switched on.
type modes struct {
	hole, stall     bool
	latency, jitter time.Duration
	cutInside       float64
	cutAnswers      float64
	cutCommits      float64
	nextCommits     int
	swallow         bool // notifications
}

// delay is how long a piece waits.
func (m modes) delay(coin *rand.Rand) time.Duration {
	return max(0, m.latency+time.Duration((2*coin.Float64()-1)*float64(m.jitter)))
}

// BlackHole lets all bytes vanish, in both directions. Connections stay open, and a close by one side is not told to the other;
// new ones hang. When it ends, those that have lost bytes are reset, and the others go on.
func (p *Proxy) BlackHole(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setLocked(func(m *modes) { m.hole = on })
	if !on {
		// Before anything passes again: the end of a transaction must not arrive without its beginning.
		p.cutLocked(func(l *link) bool { return l.lost })
	}
}

// Stall keeps all bytes back, in both directions, and lets them arrive when it ends, also those of a client that has given up and
// gone meanwhile: as when a network is parted and healed.
func (p *Proxy) Stall(on bool) { p.set(func(m *modes) { m.stall = on }) }

// Slow makes each piece wait for the latency, more or less by up to the jitter, in each direction; two zeros end it, also for
// what waits. Pieces of a connection stay in order, and one waits at a time, so that it bounds the throughput, too.
func (p *Proxy) Slow(latency, jitter time.Duration) {
	p.set(func(m *modes) { m.latency, m.jitter = latency, jitter })
}

// CutInside resets a connection in the middle of what its client sends, with the given probability for each piece that is read from
// the client: the server gets a part of the piece, at least one byte and not all.
func (p *Proxy) CutInside(probability float64) {
	p.set(func(m *modes) { m.cutInside = probability })
}

// CutAnswers resets a connection in place of the answer to what its client has sent, with the given probability for each answer:
// the server has got the request, and the client does not learn what became of it.
func (p *Proxy) CutAnswers(probability float64) {
	p.set(func(m *modes) { m.cutAnswers = probability })
}

// CutAfterCommit resets a connection in place of the server's word that a COMMIT was done, with the given probability for each:
// it is committed, and the client cannot know. (A statement outside of BEGIN and COMMIT has no such word; CutAnswers loses that one's.)
func (p *Proxy) CutAfterCommit(probability float64) {
	p.needsPostgreSQL("CutAfterCommit")
	p.set(func(m *modes) { m.cutCommits = probability })
}

// CutNextCommits does what CutAfterCommit does, for exactly the next n commits; 0 takes back what is left of an earlier call.
func (p *Proxy) CutNextCommits(n int) {
	p.needsPostgreSQL("CutNextCommits")
	p.set(func(m *modes) { m.nextCommits = n })
}

// SwallowNotifications drops the notifications that the server sends, and nothing else.
func (p *Proxy) SwallowNotifications(on bool) {
	p.needsPostgreSQL("SwallowNotifications")
	p.set(func(m *modes) { m.swallow = on })
}

func (p *Proxy) set(change func(*modes)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setLocked(change)
}

func (p *Proxy) setLocked(change func(*modes)) {
	change(&p.modes)
	close(p.changed)
	p.changed = make(chan struct{})
}

// current returns the modes, and a channel that is closed when they change.
func (p *Proxy) current() (modes, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.modes, p.changed
}

// swallows reports whether the bytes that the link has at hand vanish, and notes that it has lost some. Both at once: between them
// the hole could end, and the link would wait for ever.
func (p *Proxy) swallows(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.lost = l.lost || p.modes.hole
	return l.lost
}

// takesCommit reports whether the word of this commit is kept from the client.
func (p *Proxy) takesCommit(coin *rand.Rand) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.modes.nextCommits > 0 {
		p.modes.nextCommits--
		return true
	}
	return coin.Float64() < p.modes.cutCommits
}
