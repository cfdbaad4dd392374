package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	sustainedWriters = 32
	keysOfWriter     = 312 // 10,000 between them
)

// A writer has keys of its own and uses them in turn, so that it knows the number of each event of a key without asking.
func sustainedKey(writer int, n int64) (key string, nth int64) {
	return strconv.Itoa(writer) + "-" + strconv.FormatInt(n%keysOfWriter, 10), n / keysOfWriter
}

// sustainedRate lets the writers write while the consumer applies, and returns how much of both was done a second in
// the window: the smaller of written and applied. The one alone would flatter a system that falls behind, the other
// one that works off what it has not yet been charged for.
func sustainedRate(ctx context.Context, e *env, writers *clients) (float64, error) {
	var rate float64
	err := writers.during(ctx, func() error {
		written, begun := writers.committed.Load(), time.Now()
		applied, err := countRows(ctx, e.pool, "effects")
		if err != nil {
			return err
		}
		if !pause(ctx, e.size.sustained) {
			return ctx.Err()
		}
		written, took := writers.committed.Load()-written, time.Since(begun).Seconds()
		more, err := countRows(ctx, e.pool, "effects")
		if err != nil {
			return err
		}
		rate = float64(min(written, more-applied)) / took
		return nil
	})
	return rate, err
}

// sustainedOurs has writers that wait for the commit alone, or also for the answer to the state row's INSERT.
type sustainedOurs struct{ waiting bool }

func (s sustainedOurs) measure(ctx context.Context, e *env) ([]float64, error) {
	o := ours{style: queueing, consumers: 1}
	var done atomic.Int64
	w, err := newWorkers(e.pool, o.registry(&done))
	if err != nil {
		return nil, err
	}
	if err := w.Start(ctx); err != nil {
		return nil, err
	}
	writers := &clients{count: sustainedWriters, write: func(ctx context.Context, i int, n int64) error {
		key, nth := sustainedKey(i, n)
		return outbox.InTx(ctx, e.pool, func(tx pgx.Tx) error {
			state := tx
			if !s.waiting {
				state = outbox.Later(tx)
			}
			if err := writeState(ctx, state, uuid.New()); err != nil {
				return err
			}
			_, err := outbox.Append(ctx, tx, outbox.Event{Type: eventType, Key: key, Data: payload{N: nth}})
			return err
		})
	}}
	rate, err := sustainedRate(ctx, e, writers)
	if err == nil {
		_, err = awaitEffects(ctx, e.pool, &done, writers.committed.Load())
	}
	if err != nil {
		return nil, errors.Join(err, stopWorkers(ctx, w))
	}
	if err := o.finish(ctx, e.pool, w, writers.committed.Load()); err != nil {
		return nil, err
	}
	return []float64{rate}, nil
}

func sustainedRiver(ctx context.Context, e *env) ([]float64, error) {
	w := &completeTxWorker{pool: e.pool}
	client, err := newRiver(e.pool, func(known *river.Workers) { river.AddWorker(known, w) })
	if err != nil {
		return nil, err
	}
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	writers := &clients{count: sustainedWriters, write: func(ctx context.Context, i int, n int64) error {
		key, nth := sustainedKey(i, n)
		return pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
			id := uuid.New()
			if err := writeState(ctx, tx, id); err != nil {
				return err
			}
			_, err := client.InsertTx(ctx, tx, effectArgs{EventID: id, Key: key, N: nth}, nil)
			return err
		})
	}}
	rate, err := sustainedRate(ctx, e, writers)
	if err == nil {
		_, err = awaitEffects(ctx, e.pool, &w.done, writers.committed.Load())
	}
	if err := errors.Join(err, finishRiver(ctx, e.pool, client, writers.committed.Load())); err != nil {
		return nil, fmt.Errorf("river: %w", err)
	}
	return []float64{rate}, nil
}
