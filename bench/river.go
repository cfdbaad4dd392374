package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

const (
	riverConsumer = "river"
	riverWorkers  = 100

	insertDedupe = `INSERT INTO dedupe (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`

	// effectOnce is dedupe and effect in one statement, which is its own transaction.
	effectOnce = `WITH fresh AS (INSERT INTO dedupe (consumer, event_id) VALUES ($1, $4) ON CONFLICT DO NOTHING RETURNING true)
		INSERT INTO effects (consumer, key, n, event_id) SELECT $1, $2, $3, $4 FROM fresh`
)

type effectArgs struct {
	EventID uuid.UUID `json:"event_id"`
	Key     string    `json:"key"`
	N       int64     `json:"n"`
}

func (effectArgs) Kind() string { return "bench_effect" }

// completeTxWorker does dedupe, effect and completion in one transaction: exactly once, as River's documentation has it.
type completeTxWorker struct {
	river.WorkerDefaults[effectArgs]
	pool *pgxpool.Pool
	done atomic.Int64
}

func (w *completeTxWorker) Work(ctx context.Context, job *river.Job[effectArgs]) error {
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, insertDedupe, riverConsumer, job.Args.EventID)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 1 {
			if _, err := tx.Exec(ctx, insertEffect, riverConsumer, job.Args.Key, job.Args.N, job.Args.EventID); err != nil {
				return err
			}
		}
		completed, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		if err != nil {
			return err
		}
		if completed.FinalizedAt == nil {
			return errors.New("the job was not running any more")
		}
		return nil
	})
	if err == nil {
		w.done.Add(1)
	}
	return err
}

// oneStatementWorker leaves the completion to River, which does that in batches: a crash in between repeats the
// job, and the dedupe row makes the effect happen once all the same.
type oneStatementWorker struct {
	river.WorkerDefaults[effectArgs]
	pool *pgxpool.Pool
	done atomic.Int64
}

func (w *oneStatementWorker) Work(ctx context.Context, job *river.Job[effectArgs]) error {
	_, err := w.pool.Exec(ctx, effectOnce, riverConsumer, job.Args.Key, job.Args.N, job.Args.EventID)
	if err == nil {
		w.done.Add(1)
	}
	return err
}

// newRiver is a client that fetches as often as River lets it.
func newRiver(pool *pgxpool.Pool, register func(*river.Workers)) (*river.Client[pgx.Tx], error) {
	known := river.NewWorkers()
	register(known)
	return river.NewClient(riverpgxv5.New(pool), &river.Config{
		Workers:       known,
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}},
		FetchCooldown: time.Millisecond,
		Logger:        problems,
	})
}

func riverCompleteTx(ctx context.Context, e *env) ([]float64, error) {
	w := &completeTxWorker{pool: e.pool}
	return riverThroughput(ctx, e, func(known *river.Workers) { river.AddWorker(known, w) }, &w.done, e.size.riverEvents)
}

func riverOneStatement(ctx context.Context, e *env) ([]float64, error) {
	w := &oneStatementWorker{pool: e.pool}
	return riverThroughput(ctx, e, func(known *river.Workers) { river.AddWorker(known, w) }, &w.done, 2*e.size.riverEvents)
}

func riverThroughput(ctx context.Context, e *env, register func(*river.Workers), done counter, n int) ([]float64, error) {
	maker := newMaker(10_000)
	return warmThenTimed(e.size.riverWarmEvents, n, func(n int) (time.Duration, error) {
		return workAll(ctx, e, register, done, maker, n)
	})
}

// workAll inserts so many jobs and says how long it took to work them.
func workAll(ctx context.Context, e *env, register func(*river.Workers), done counter, maker *maker, n int) (time.Duration, error) {
	client, err := newRiver(e.pool, register)
	if err != nil {
		return 0, err
	}
	events, err := maker.make(n)
	if err != nil {
		return 0, err
	}
	jobs := make([]river.InsertManyParams, n)
	for i, ev := range events {
		jobs[i] = river.InsertManyParams{Args: effectArgs{EventID: ev.id, Key: ev.key, N: ev.data.N}}
	}
	if _, err := client.InsertManyFast(ctx, jobs); err != nil {
		return 0, fmt.Errorf("insert jobs: %w", err)
	}
	if err := settle(ctx, e.pool); err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return 0, err
	}
	ended, err := awaitEffects(ctx, e.pool, done, maker.count)
	return ended.Sub(begun), errors.Join(err, finishRiver(ctx, e.pool, client, maker.count))
}

// finishRiver stops the client and checks what it did. River promises no order.
func finishRiver(ctx context.Context, pool *pgxpool.Pool, client *river.Client[pgx.Tx], events int64) error {
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := client.Stop(stop); err != nil {
		return err
	}
	return expectation{consumers: []string{riverConsumer}, events: events, dedupe: "dedupe"}.check(ctx, pool)
}
