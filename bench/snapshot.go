package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const snapshotCycles = 4

// oldSnapshot holds a transaction open that has read something, as a long report or a forgotten session does. Vacuum may
// then remove nothing that was deleted since, and whatever scans over it gets slower with every cycle.
func oldSnapshot(ctx context.Context, e *env) ([]float64, error) {
	o := ours{style: queueing, consumers: 1, keys: 10_000}
	var done atomic.Int64
	w, err := newWorkers(e.pool, o.registry(&done))
	if err != nil {
		return nil, err
	}
	if err := w.Start(ctx); err != nil {
		return nil, err
	}
	ratio, events, err := snapshotRates(ctx, e, newMaker(o.keys), &done)
	if err != nil {
		return nil, errors.Join(err, stopWorkers(ctx, w))
	}
	if err := o.finish(ctx, e.pool, w, events); err != nil {
		return nil, err
	}
	return []float64{ratio}, nil
}

// snapshotRates returns the rate of the last cycle over that of the first, and how many events there were.
func snapshotRates(ctx context.Context, e *env, m *maker, done counter) (ratio float64, events int64, err error) {
	// Before the snapshot: the first cycle shall not pay for a cold start.
	if _, err := snapshotCycle(ctx, e, m, done); err != nil {
		return 0, 0, err
	}
	release, err := holdSnapshot(ctx, e.pool)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, release()) }()
	var first, last float64
	for i := range snapshotCycles {
		if last, err = snapshotCycle(ctx, e, m, done); err != nil {
			return 0, 0, err
		}
		if i == 0 {
			first = last
		}
	}
	return last / first, m.count, nil
}

// holdSnapshot opens the transaction.
func holdSnapshot(ctx context.Context, pool *pgxpool.Pool) (release func() error, err error) {
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, err
	}
	release = func() error { return tx.Rollback(context.WithoutCancel(ctx)) }
	var n int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM outbox`).Scan(&n); err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

// snapshotCycle writes events and returns how many a second were applied, from their commit to the last effect.
func snapshotCycle(ctx context.Context, e *env, m *maker, done counter) (float64, error) {
	events, err := m.make(e.size.snapshotEvents)
	if err != nil {
		return 0, err
	}
	if err := fillOutbox(ctx, e.pool, events); err != nil {
		return 0, err
	}
	begun := time.Now()
	outbox.Wake()
	ended, err := awaitEffects(ctx, e.pool, done, m.count)
	if err != nil {
		return 0, err
	}
	return float64(len(events)) / ended.Sub(begun).Seconds(), nil
}
