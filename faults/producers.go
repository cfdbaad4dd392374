package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/faultkit"
)

const (
	keys    = 2000 // of raw producers
	hotKeys = 3    // which get a tenth of everything
	// Few enough for events to wait behind each other.
	troubleKeys   = 200
	statementTime = 10 * time.Second
)

// producers write state and events by SQL alone, as any language would: faults.append, many to a transaction.
type producers struct {
	journal    *journal
	url        func() string
	seed       uint64
	pause      time.Duration // between two transactions of one producer
	violations *violations

	troubles atomic.Bool // events that make their consumer fail are among them
	unknown  atomic.Int64
	refused  atomic.Int64
	done     sync.WaitGroup
}

// raw is an event to be appended.
type raw struct {
	kind, key, data string
}

func (p *producers) run(ctx context.Context, count int) {
	for i := range count {
		rng := rand.New(rand.NewPCG(p.seed, 1000+uint64(i)))
		p.done.Go(func() {
			one := &producer{producers: p, rng: rng}
			defer one.close()
			for ctx.Err() == nil {
				if err := one.transaction(context.WithoutCancel(ctx)); err != nil {
					p.violations.add("producer: %v", err)
				}
				sleep(ctx, time.Duration(float64(p.pause)*(0.5+rng.Float64())))
			}
		})
	}
}

func (p *producers) wait() { p.done.Wait() }

// producer is one client with one connection.
type producer struct {
	*producers
	rng  *rand.Rand
	conn *pgx.Conn
}

func (p *producer) close() {
	if p.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = p.conn.Close(ctx)
		p.conn = nil
	}
}

// transaction appends once. One whose outcome is not known is looked up: found, it is acknowledged, and else it is nothing.
func (p *producer) transaction(ctx context.Context) error {
	events := p.draw()
	correlation := uuid.NewString()
	ids, err := p.try(ctx, events, correlation)
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return p.acknowledge(events, ids, correlation)
	case errors.As(err, &refused) && refused.Severity == "ERROR":
		// A deadlock, a lock or statement timeout, a full disk: all of it was rolled back.
		p.refused.Add(1)
		if !passes(refused.Code) {
			return fmt.Errorf("an append was refused: %w", err)
		}
		return nil
	}
	p.close()
	p.unknown.Add(1)
	found, err := p.lookUp(ctx, correlation)
	if err != nil || len(found) == 0 {
		return err
	}
	if len(found) != len(events) {
		return fmt.Errorf("a transaction of %d events left %d", len(events), len(found))
	}
	return p.acknowledge(events, found, correlation)
}

// passes says whether the error is of a state that passes.
func passes(code string) bool {
	switch code[:2] {
	case "08", "40", "53", "57", "58":
		return true
	}
	return code == "55P03" || code == "25P03" || code == "25006"
}

func (p *producer) acknowledge(events []raw, ids []uuid.UUID, correlation string) error {
	entries := make([]entry, len(ids))
	for i, id := range ids {
		entries[i] = entry{events[i].kind, id, correlation}
	}
	return p.journal.acknowledge(entries...)
}

func (p *producer) try(ctx context.Context, events []raw, correlation string) ([]uuid.UUID, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	if p.conn == nil || p.conn.IsClosed() {
		conn, err := pgx.Connect(ctx, p.url())
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		p.conn = conn
	}
	ids := make([]uuid.UUID, len(events))
	b := &pgx.Batch{}
	b.Queue("begin")
	for i, e := range events {
		b.Queue("select event_id from faults.append($1, $2, $3::jsonb, $4)", e.kind, e.key, e.data, correlation).
			QueryRow(func(row pgx.Row) error { return row.Scan(&ids[i]) })
	}
	b.Queue("commit")
	if err := p.conn.SendBatch(ctx, b).Close(); err != nil {
		var refused *pgconn.PgError
		if errors.As(err, &refused) {
			_, _ = p.conn.Exec(ctx, "rollback")
		}
		return nil, err
	}
	return ids, nil
}

// lookUp asks what became of a transaction until there is an answer. It writes, so that what it has seen is as safe as a commit is.
func (p *producer) lookUp(ctx context.Context, correlation string) (ids []uuid.UUID, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		ids, err = p.ask(ctx, correlation)
		if err == nil {
			return ids, nil
		}
		p.close()
		sleep(ctx, time.Duration(50+p.rng.IntN(100))*time.Millisecond)
	}
	return nil, fmt.Errorf("look a transaction up: %w", err)
}

func (p *producer) ask(ctx context.Context, correlation string) ([]uuid.UUID, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.url())
	if err != nil {
		return nil, err
	}
	p.conn = conn
	rows, err := conn.Query(ctx, `with touched as (update faults.state set looked_up = true where correlation_id = $1 returning event_id, n)
		select event_id from touched order by n`, correlation)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
}

// draw makes up a transaction. The keys are in order, or a deadlock is to be had; in the order of n they are as in the slice.
func (p *producer) draw() []raw {
	n := 1 + p.rng.IntN(20)
	events := make([]raw, n)
	for i := range events {
		key := fmt.Sprintf("k%d", p.rng.IntN(keys))
		if p.rng.IntN(10) == 0 {
			key = fmt.Sprintf("hot%d", p.rng.IntN(hotKeys))
		}
		events[i] = raw{faultkit.Noted, key, "{}"}
		switch n := p.rng.IntN(1000); {
		case n < 5:
			events[i].kind = faultkit.Sent
		case n < 8:
			events[i].kind = faultkit.Fanned
		case n < 10 && p.troubles.Load():
			events[i] = raw{faultkit.Trouble, fmt.Sprintf("t%d", p.rng.IntN(troubleKeys)), p.trouble()}
		}
	}
	if p.rng.IntN(50) > 0 {
		slices.SortStableFunc(events, func(a, b raw) int { return strings.Compare(a.key, b.key) })
	}
	return events
}

// trouble is what an event does to its consumer: in most cases it passes by itself, else it becomes a dead letter.
func (p *producer) trouble() string {
	do := []string{"fail", "fail", "permanent", "panic", "slow", "serialization", "deadlock", "division", "apply", "apply"}[p.rng.IntN(10)]
	return fmt.Sprintf(`{"do": %q, "times": %d, "ms": %d}`, do, 1+p.rng.IntN(2), p.rng.IntN(300))
}
