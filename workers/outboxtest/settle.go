package outboxtest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

const (
	// retryAfter is the wait between attempts, in place of the consumers' own.
	retryAfter = time.Millisecond
	// poll finds the attempts that are due; lookEvery is how often the tables are asked whether they are at rest.
	poll      = 20 * time.Millisecond
	lookEvery = 5 * time.Millisecond
	// stopWithin is how long handlers that are under way may go on when a Settle is given up; then their contexts end, and
	// they get as long again.
	stopWithin = 2 * time.Second
	// connections is what the workers of a test can use at a time.
	connections = 16
)

type settings struct {
	ctx      context.Context //nolint:containedctx // the package's own tests end a Settle when they have seen enough
	within   time.Duration
	schema   outbox.Schema
	logger   *slog.Logger
	consumer []outbox.Option
}

// Option sets something about a Settle.
type Option func(*settings)

// Within sets how long it may take until all is quiet. Default 30 s.
func Within(d time.Duration) Option { return func(s *settings) { s.within = d } }

// MaxAttempts sets after how many failed attempts an event is a dead letter, for all consumers. Default: each one's own, or 25.
func MaxAttempts(n int) Option {
	return func(s *settings) { s.consumer = append(s.consumer, outbox.MaxAttempts(n)) }
}

// Schema names the schema of the outbox's tables. Default: whatever the pool's search_path finds.
func Schema(schema outbox.Schema) Option { return func(s *settings) { s.schema = schema } }

// Logger gets what the workers have to say. Default: failed attempts and worse go to the test's log.
func Logger(l *slog.Logger) Option { return func(s *settings) { s.logger = l } }

// Settle runs the relay, and the drains and deliveries of reg's consumers, until nothing is left to do: the outbox is
// empty, no consumer has an event ahead of its cursors, in flight or waiting, but for those that wait behind a dead letter,
// and no backfill is under way. Scheduled events that are not due are left, with those that wait for them. Then it stops all that it started and returns what happened. Dead letters do not fail
// the test: that is for the caller to judge. Failed attempts are retried after a millisecond, whatever the consumers'
// Backoff says, so that an event that cannot succeed is dead within about a second.
//
// It ends the test, with a list of what is still open, when that takes longer than Within, and at once when it cannot end well: a
// consumer that has work is paused, or left to another build (outbox.Engine.Register).
//
// Call it from the test's own goroutine. Handlers run on others, as in the program: they must not call tb.FailNow or what calls
// it (require), and nothing in the test may hold a lock that they need. The workers use a pool of their own, with the settings of
// the given one, so that its size does not matter. reg is not changed.
func Settle(tb testing.TB, pool *pgxpool.Pool, reg *outbox.Registry, opts ...Option) *Report {
	tb.Helper()
	// Not the test's own context, which has ended when a Cleanup runs.
	s := settings{ctx: context.WithoutCancel(tb.Context()), within: 30 * time.Second, consumer: []outbox.Option{outbox.Backoff(retryAfter, retryAfter)}}
	for _, o := range opts {
		o(&s)
	}
	log := &testLog{tb: tb}
	defer log.end()
	if s.logger == nil {
		s.logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.within)
	defer cancel()

	fail := func(err error) {
		tb.Helper()
		if ctx.Err() != nil {
			tb.Fatalf("outboxtest: it has not come to rest within %s: %v", s.within, err)
		}
		tb.Fatalf("outboxtest: %v", err)
	}
	own, err := ownPool(ctx, pool)
	if err != nil {
		fail(err)
	}
	defer closePool(own)
	look := newLook(own, s.schema, reg)
	before, err := look.counts(ctx)
	if err != nil {
		fail(err)
	}
	open, err := run(ctx, own, reg.With(s.consumer...), look, &s)
	if err != nil {
		fail(err)
	}
	if open != "" {
		tb.Fatalf("outboxtest: %s", open)
	}
	report, err := look.report(context.WithoutCancel(ctx), before)
	if err != nil {
		fail(err)
	}
	return report
}

// run works until all is quiet, and stops whatever it started. open says what is not.
func run(ctx context.Context, pool *pgxpool.Pool, reg *outbox.Registry, look *look, s *settings) (open string, err error) {
	w, err := workers.New(pool, reg, workers.Config{
		Schema: s.schema, Poll: poll, SoftStop: stopWithin, Logger: s.logger, Build: "outboxtest",
		RetryBase: retryAfter, RetryMax: retryAfter,
	})
	if err != nil {
		return "", err
	}
	if err := w.Start(ctx); err != nil {
		return "", err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopWithin)
		defer cancel()
		if stopErr := w.Stop(ctx); stopErr != nil && err == nil {
			err = fmt.Errorf("%s: the workers do not stop: a handler ignores that its context has ended? %w", open, stopErr)
		}
	}()
	if look.left, err = w.Engine().Uncovered(ctx); err != nil {
		return "", err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		state, err := look.state(ctx)
		switch {
		case err == nil && state.quiet():
			return "", nil
		case err == nil && state.stuck():
			return "it cannot come to rest" + state.String(), nil
		case err != nil && ctx.Err() == nil:
			return "", err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s.late(ctx, look), nil
		}
	}
}

// late says what is open when the time is up.
func (s *settings) late(ctx context.Context, look *look) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	said := fmt.Sprintf("it has not come to rest within %s", s.within)
	state, err := look.state(ctx)
	if err != nil {
		return fmt.Sprintf("%s, and what is open cannot be read: %v", said, err)
	}
	if err := look.inFlight(ctx, state); err != nil {
		return fmt.Sprintf("%s%s\n\twhat is in flight cannot be read: %v", said, state, err)
	}
	return said + state.String()
}

// ownPool is a pool like the test's: that one may have few connections, and the test may hold some of them.
func ownPool(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Pool, error) {
	config := pool.Config()
	config.MaxConns = connections
	config.MinConns, config.MinIdleConns = 0, 0
	return pgxpool.NewWithConfig(ctx, config)
}

// closePool does not wait for ever: a handler that ignores the end of its context may still have a connection.
func closePool(pool *pgxpool.Pool) {
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	timer := time.NewTimer(stopWithin)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
	}
}

// testLog writes to the test's log for as long as a Settle runs: a test that has ended must not be written to.
type testLog struct {
	mu sync.Mutex
	tb testing.TB
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tb != nil {
		l.tb.Log(string(bytes.TrimSpace(p)))
	}
	return len(p), nil
}

func (l *testLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tb = nil
}
