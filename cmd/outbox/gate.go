package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"
)

const (
	// connectFree is how many connections may be tried for without one that succeeds: as many as a pool opens when it starts.
	connectFree = poolConns
	// connectRate is how many are tried for from then on, a second. The first that succeeds opens the gate.
	connectRate = 5
)

// gate keeps the process from storming a server that takes no connections. Each worker, each request and each queue asks for one again
// and again; a server that is recovering forks a process to refuse each, and takes the longer for it: with three processes, seen on a
// machine of two cores, a recovery of two seconds took a minute.
type gate struct {
	rate *rate.Limiter

	mu         sync.Mutex
	unanswered int
	opened     chan struct{} // closed when a connection is there, for those that wait; then another takes its place
}

func newGate() *gate {
	return &gate{rate: rate.NewLimiter(connectRate, 1), opened: make(chan struct{})}
}

// before is a pool's BeforeConnect. Those that wait when the gate opens go at once: with their turns they would come seconds later, and
// the relay may be the last of them.
func (g *gate) before(ctx context.Context, _ *pgx.ConnConfig) error {
	g.mu.Lock()
	g.unanswered++
	free, opened := g.unanswered <= connectFree, g.opened
	g.mu.Unlock()
	if free {
		return nil
	}
	turn := g.rate.Reserve()
	wait := turn.Delay()
	if deadline, limited := ctx.Deadline(); limited && time.Until(deadline) < wait {
		turn.Cancel()
		return fmt.Errorf("the database takes no connections, and others ask for one already: %w", context.DeadlineExceeded)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-opened:
		turn.Cancel()
		return nil
	case <-ctx.Done():
		turn.Cancel()
		return fmt.Errorf("wait for a turn to connect: %w", ctx.Err())
	}
}

// after is its AfterConnect.
func (g *gate) after(context.Context, *pgx.Conn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unanswered = 0
	close(g.opened)
	g.opened = make(chan struct{})
	return nil
}
