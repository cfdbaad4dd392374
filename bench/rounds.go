package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// errWrong says that a system did not do what was measured.
var errWrong = errors.New("the effects are wrong")

// sizes say how much each case does.
type sizes struct {
	name string
	// rounds that every case is run; the long ones (see measurement.once) run onceRounds.
	rounds, onceRounds int
	// budget is when the bench has to be through; 0: whenever it is.
	budget time.Duration
	// timeout bounds one case in one round.
	timeout time.Duration

	// warmEvents come before those that are timed; riverWarmEvents at those that are slower.
	warmEvents, riverWarmEvents                                                                                   int
	events, limitEvents, riverEvents, watermillEvents, backlogEvents, snapshotEvents, catchUpEvents, scrapeEvents int

	watermillBatches                                 []int
	write, sustained, latency, idleSettle, idleSpell time.Duration
}

var (
	quickSize = sizes{
		name: "quick", rounds: 3, onceRounds: 1, budget: 225 * time.Second, timeout: time.Minute,
		warmEvents: 10_000, riverWarmEvents: 500,
		events: 80_000, limitEvents: 100_000, riverEvents: 4_000, watermillEvents: 15_000, backlogEvents: 120_000, snapshotEvents: 20_000, catchUpEvents: 50_000, scrapeEvents: 50_000,
		watermillBatches: []int{1000},
		write:            2 * time.Second, sustained: 4 * time.Second, latency: 5 * time.Second,
		idleSettle: 11 * time.Second, idleSpell: 8 * time.Second,
	}
	fullSize = sizes{
		name: "full", rounds: 5, onceRounds: 3, timeout: 15 * time.Minute,
		warmEvents: 20_000, riverWarmEvents: 2_000,
		events: 200_000, limitEvents: 400_000, riverEvents: 10_000, watermillEvents: 30_000, backlogEvents: 1_000_000, snapshotEvents: 20_000, catchUpEvents: 1_000_000, scrapeEvents: 1_000_000,
		watermillBatches: []int{100, 1000},
		write:            5 * time.Second, sustained: 10 * time.Second, latency: 30 * time.Second,
		idleSettle: 10 * time.Second, idleSpell: 30 * time.Second,
	}
)

// env is what a case gets for one round: a fresh database and a pool on it.
type env struct {
	server *server
	url    string
	pool   *pgxpool.Pool
	size   sizes
}

// plan is which cases are run and how often.
type plan struct {
	size   sizes
	only   *regexp.Regexp
	rounds int
}

func (p plan) cases() []measurement {
	var chosen []measurement
	for _, m := range measurements {
		if p.only != nil && !m.matches(p.only) || p.only == nil && m.long && p.size.budget > 0 {
			continue
		}
		chosen = append(chosen, m)
	}
	return chosen
}

// rounds of one case: as many as were asked for, else its share of the size's.
func (p plan) roundsOf(m measurement) int {
	switch {
	case p.rounds > 0:
		return p.rounds
	case m.once:
		return p.size.onceRounds
	default:
		return p.size.rounds
	}
}

// run goes round by round through all cases, so that what disturbs the machine for a while disturbs all systems alike.
// Of a size with a budget the first round is run as a whole; after it a case is left out that would not end in time.
// A case that failed is not run again.
func (p plan) run(ctx context.Context, s *server, begun time.Time) (*results, []error) {
	if p.size.budget > 0 && p.rounds == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, begun.Add(p.size.budget))
		defer cancel()
	}
	cases, r := p.cases(), newResults(ctx, s)
	took, failed := make([]time.Duration, len(cases)), make([]bool, len(cases))
	var failures []error
	for round, more := 1, true; more && ctx.Err() == nil; round++ {
		more = false
		for i, m := range cases {
			if round > p.roundsOf(m) || failed[i] || ctx.Err() != nil {
				continue
			}
			more = true
			deadline, limited := ctx.Deadline()
			if limited && round > 1 && time.Until(deadline) < took[i]*5/4 {
				continue
			}
			from := time.Now()
			values, err := m.round(ctx, s, p.size)
			took[i] = time.Since(from)
			if err != nil {
				failed[i] = true
				failures = append(failures, fmt.Errorf("FAILED %s, round %d: %w", m, round, err))
				fmt.Fprintln(os.Stderr, failures[len(failures)-1])
				continue
			}
			r.add(m, values)
			fmt.Fprintf(os.Stderr, "round %d  %s  (%.1fs)\n", round, m.describe(values), took[i].Seconds())
		}
	}
	if err := ctx.Err(); err != nil {
		failures = append(failures, fmt.Errorf("not everything was run: %w", err))
	}
	return r, failures
}

// round runs the case in a database of its own.
func (m measurement) round(ctx context.Context, s *server, size sizes) (values []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, size.timeout)
	defer cancel()
	address, drop, err := s.database(ctx, m.on)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	pool, err := openPool(ctx, address)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return m.run(ctx, &env{server: s, url: address, pool: pool, size: size})
}

func (m measurement) String() string {
	names := make([]string, len(m.gives))
	for i, g := range m.gives {
		names[i] = g.name
	}
	return strings.Join(names, ", ")
}

func (m measurement) describe(values []float64) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = fmt.Sprintf("%s %s %s", m.gives[i].name, number(v), m.gives[i].unit)
	}
	return strings.Join(parts, ", ")
}
