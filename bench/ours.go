package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

const insertEffect = `INSERT INTO effects (consumer, key, n, event_id) VALUES ($1, $2, $3, $4)`

// style is how a handler writes its effect.
type style int

const (
	queueing style = iota // on the batch that travels with those of other events: the ordinary handler
	execing               // one Exec per event
	setBased              // one statement for all events it is given
)

// ours is a case of pgoutbox.
type ours struct {
	style     style
	consumers int
	keys      int
	failEvery int64 // the first attempt of every such event fails; 0: none
	late      bool  // consumers but the first begin with the oldest event
}

var errFirstAttempt = errors.New("the first attempt of this event fails")

// names are those of the consumers.
func (o ours) names() []string {
	names := make([]string, o.consumers)
	for i := range names {
		names[i] = fmt.Sprintf("consumer-%d", i+1)
	}
	return names
}

// registry registers the consumers; done counts what they have handled.
func (o ours) registry(done *atomic.Int64) *outbox.Registry {
	reg := outbox.NewRegistry()
	opts := []outbox.Option{outbox.On(eventType)}
	if o.failEvery > 0 {
		opts = append(opts, outbox.Backoff(10*time.Millisecond, 10*time.Millisecond))
	}
	for i, name := range o.names() {
		opts := opts
		if o.late && i > 0 {
			opts = append(slices.Clone(opts), outbox.StartFrom(outbox.Beginning))
		}
		switch o.style {
		case queueing:
			outbox.Handle(reg, name, func(ctx context.Context, _ pgx.Tx, e outbox.Received[payload]) error {
				if o.failEvery > 0 && e.Attempt == 1 && e.Data.I%o.failEvery == 0 {
					return errFirstAttempt
				}
				outbox.Batch(ctx).Queue(insertEffect, e.Consumer, e.Key, e.Data.N, e.ID)
				done.Add(1)
				return nil
			}, opts...)
		case execing:
			outbox.Handle(reg, name, func(ctx context.Context, tx pgx.Tx, e outbox.Received[payload]) error {
				done.Add(1)
				_, err := tx.Exec(ctx, insertEffect, e.Consumer, e.Key, e.Data.N, e.ID)
				return err
			}, opts...)
		case setBased:
			outbox.HandleBatch(reg, name, func(ctx context.Context, tx pgx.Tx, es []outbox.Received[payload]) error {
				keys, ns, ids := make([]string, len(es)), make([]int64, len(es)), make([]uuid.UUID, len(es))
				for i, e := range es {
					keys[i], ns[i], ids[i] = e.Key, e.Data.N, e.ID
				}
				done.Add(int64(len(es)))
				_, err := tx.Exec(ctx, `INSERT INTO effects (consumer, key, n, event_id)
					SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::uuid[])`, name, keys, ns, ids)
				return err
			}, opts...)
		}
	}
	return reg
}

func (o ours) expects(events int64) expectation {
	return expectation{consumers: o.names(), events: events, dedupe: "processed_events", ordered: true, outbox: true}
}

// throughput has a backlog applied, from the outbox through the log to the last committed effect, and returns
// deliveries per second. The time includes the start of the workers.
func (o ours) throughput(ctx context.Context, e *env) ([]float64, error) {
	rate, err := warmThenTimed(e.size.warmEvents, e.size.events, o.backlog(ctx, e))
	if err != nil {
		return nil, err
	}
	return []float64{rate[0] * float64(o.consumers)}, nil
}

// backlog returns what has so many more events applied, and says how long it took.
func (o ours) backlog(ctx context.Context, e *env) func(n int) (time.Duration, error) {
	maker := newMaker(o.keys)
	var done atomic.Int64
	return func(n int) (time.Duration, error) {
		events, err := maker.make(n)
		if err != nil {
			return 0, err
		}
		if err := fillOutbox(ctx, e.pool, events); err != nil {
			return 0, err
		}
		if err := settle(ctx, e.pool); err != nil {
			return 0, err
		}
		w, err := newWorkers(e.pool, o.registry(&done))
		if err != nil {
			return 0, err
		}
		begun := time.Now()
		if err := w.Start(ctx); err != nil {
			return 0, err
		}
		ended, err := awaitEffects(ctx, e.pool, &done, maker.count*int64(o.consumers))
		return ended.Sub(begun), errors.Join(err, o.finish(ctx, e.pool, w, maker.count))
	}
}

// finish stops the workers, once they have tidied up after the last effect, and checks what they did.
func (o ours) finish(ctx context.Context, pool *pgxpool.Pool, w *workers.Workers, events int64) error {
	expected := o.expects(events)
	err := quiet(ctx, pool)
	if err := errors.Join(err, stopWorkers(ctx, w)); err != nil {
		return err
	}
	return expected.check(ctx, pool)
}

// quiet waits until no key is held any more: the drain that lifts a hold comes after the effect that settled it. When
// it takes too long the check will say so.
func quiet(ctx context.Context, pool *pgxpool.Pool) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		var held bool
		if err := pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM holds) OR EXISTS (SELECT FROM waiting)`).Scan(&held); err != nil {
			return err
		}
		if !held || !pause(ctx, 10*time.Millisecond) {
			break
		}
	}
	return ctx.Err()
}

// newWorkers are workers as anybody would run them: with the default configuration.
func newWorkers(pool *pgxpool.Pool, reg *outbox.Registry) (*workers.Workers, error) {
	return workers.New(pool, reg, workers.Config{Logger: problems})
}

func stopWorkers(ctx context.Context, w *workers.Workers) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	return w.Stop(ctx)
}

// problems is the log of the systems under test.
var problems = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
