package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	latencyEvery = 10 * time.Millisecond
	// latencyWarmUp is how many of the first events are left out.
	latencyWarmUp = 50
)

// onSchedule calls write at fixed times, late ones at once: a system that is slow for a moment is not spared the events of
// that moment. It returns how many it has written.
func onSchedule(ctx context.Context, spell time.Duration, write func(i int64) error) (int64, error) {
	count := latencyWarmUp + int64(spell/latencyEvery)
	begun := time.Now()
	for i := range count {
		if wait := time.Until(begun.Add(time.Duration(i) * latencyEvery)); wait > 0 && !pause(ctx, wait) {
			return i, ctx.Err()
		}
		if err := write(i); err != nil {
			return i, err
		}
	}
	return count, nil
}

// commitToEffect reads from the server when it committed each state row and its effect (track_commit_timestamp), which is
// exact and means the same for every system, and returns p50 and p99 of the difference in milliseconds. A state row
// carries the number of its event in its name, an effect in its key.
func commitToEffect(ctx context.Context, e *env) ([]float64, error) {
	rows, _ := e.pool.Query(ctx, `SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(f.xmin) - pg_xact_commit_timestamp(u.xmin))::float8
		FROM users u JOIN effects f ON f.key = u.name WHERE u.name::bigint >= $1`, latencyWarmUp)
	took, err := pgx.CollectRows(rows, pgx.RowTo[float64])
	if err != nil {
		return nil, fmt.Errorf("read commit times: %w", err)
	}
	if len(took) == 0 {
		return nil, fmt.Errorf("%w: no effect belongs to a state row", errWrong)
	}
	slices.Sort(took)
	return []float64{percentile(took, 0.5), percentile(took, 0.99)}, nil
}

// percentile of sorted values: the smallest that at least this share of them does not exceed.
func percentile(sorted []float64, share float64) float64 {
	return sorted[max(int(math.Ceil(share*float64(len(sorted))))-1, 0)]
}

func writeNumberedState(ctx context.Context, tx pgx.Tx, i int64) error {
	id := uuid.New()
	_, err := tx.Exec(ctx, insertUser, id, id.String()+"@example.com", strconv.FormatInt(i, 10))
	return err
}

func latencyOurs(ctx context.Context, e *env) ([]float64, error) {
	o := ours{style: queueing, consumers: 1}
	var done atomic.Int64
	w, err := newWorkers(e.pool, o.registry(&done))
	if err != nil {
		return nil, err
	}
	if err := w.Start(ctx); err != nil {
		return nil, err
	}
	count, err := onSchedule(ctx, e.size.latency, func(i int64) error {
		return outbox.InTx(ctx, e.pool, func(tx pgx.Tx) error {
			if err := writeNumberedState(ctx, tx, i); err != nil {
				return err
			}
			_, err := outbox.Append(ctx, tx, outbox.Event{Type: eventType, Key: strconv.FormatInt(i, 10), Data: payload{I: i}})
			return err
		})
	})
	if err == nil {
		_, err = awaitEffects(ctx, e.pool, &done, count)
	}
	if err != nil {
		return nil, errors.Join(err, stopWorkers(ctx, w))
	}
	if err := o.finish(ctx, e.pool, w, count); err != nil {
		return nil, err
	}
	return commitToEffect(ctx, e)
}

func latencyRiver(ctx context.Context, e *env) ([]float64, error) {
	w := &completeTxWorker{pool: e.pool}
	client, err := newRiver(e.pool, func(known *river.Workers) { river.AddWorker(known, w) })
	if err != nil {
		return nil, err
	}
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	count, err := onSchedule(ctx, e.size.latency, func(i int64) error {
		return pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
			if err := writeNumberedState(ctx, tx, i); err != nil {
				return err
			}
			_, err := client.InsertTx(ctx, tx, effectArgs{EventID: uuid.New(), Key: strconv.FormatInt(i, 10)}, nil)
			return err
		})
	})
	if err == nil {
		_, err = awaitEffects(ctx, e.pool, &w.done, count)
	}
	if err := errors.Join(err, finishRiver(ctx, e.pool, client, count)); err != nil {
		return nil, err
	}
	return commitToEffect(ctx, e)
}
