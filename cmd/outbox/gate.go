package main

import (
	"context"
	"fmt"
	"sync/atomic"

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
	unanswered atomic.Int64
	rate       *rate.Limiter
}

func newGate() *gate { return &gate{rate: rate.NewLimiter(connectRate, 1)} }

// before is a pool's BeforeConnect.
func (g *gate) before(ctx context.Context, _ *pgx.ConnConfig) error {
	if g.unanswered.Add(1) <= connectFree {
		return nil
	}
	if err := g.rate.Wait(ctx); err != nil {
		return fmt.Errorf("the database takes no connections, and others ask for one already: %w", context.DeadlineExceeded)
	}
	return nil
}

// after is its AfterConnect.
func (g *gate) after(context.Context, *pgx.Conn) error {
	g.unanswered.Store(0)
	return nil
}
