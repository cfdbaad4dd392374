package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	catchUpWriters = 4
	// catchUpPause is between two writes of a writer: traffic goes on, and is not what is measured.
	catchUpPause = 10 * time.Millisecond
)

// catchUp has a consumer come to a service that has a history and live traffic: it begins with the oldest event and reads until
// it is where the other one is. What is measured is how many events a second it does until then; each key's history must
// have come before its live events, which the check sees.
func catchUp(ctx context.Context, e *env) ([]float64, error) {
	old, both := ours{style: queueing, consumers: 1}, ours{style: queueing, consumers: 2, late: true}
	var done atomic.Int64
	history := int64(e.size.catchUpEvents) / catchUpWriters * catchUpWriters
	perWriter := history / catchUpWriters
	for from := int64(0); from < perWriter; from += 20_000 {
		var events []event
		for n := from; n < min(from+20_000, perWriter); n++ {
			for i := range catchUpWriters {
				id, err := uuid.NewV7()
				if err != nil {
					return nil, err
				}
				key, nth := sustainedKey(i, n)
				events = append(events, event{id: id, key: key, data: payload{N: nth}})
			}
		}
		if err := fillOutbox(ctx, e.pool, events); err != nil {
			return nil, err
		}
	}
	if err := settle(ctx, e.pool); err != nil {
		return nil, err
	}
	w, err := newWorkers(e.pool, old.registry(&done))
	if err != nil {
		return nil, err
	}
	if err := w.Start(ctx); err != nil {
		return nil, err
	}
	_, err = awaitEffects(ctx, e.pool, &done, history)
	if err := errors.Join(err, old.finish(ctx, e.pool, w, history)); err != nil {
		return nil, err
	}

	done.Store(0)
	if w, err = newWorkers(e.pool, both.registry(&done)); err != nil {
		return nil, err
	}
	writers := &clients{count: catchUpWriters, write: func(ctx context.Context, i int, n int64) error {
		key, nth := sustainedKey(i, perWriter+n)
		err := outbox.InTx(ctx, e.pool, func(tx pgx.Tx) error {
			_, err := outbox.Append(ctx, tx, outbox.Event{Type: eventType, Key: key, Data: payload{N: nth}})
			return err
		})
		pause(ctx, catchUpPause)
		return err
	}}
	var rate float64
	err = writers.during(ctx, func() error {
		begun := time.Now()
		if err := w.Start(ctx); err != nil {
			return err
		}
		for {
			// Behind by no more than what is on its way to the other one, too.
			var late, live int64
			if err := e.pool.QueryRow(ctx, `SELECT count(*) FILTER (WHERE consumer = 'consumer-2'), count(*) FILTER (WHERE consumer = 'consumer-1')
				FROM effects`).Scan(&late, &live); err != nil {
				return err
			}
			if late+catchUpWriters >= live {
				rate = float64(late) / time.Since(begun).Seconds()
				return nil
			}
			// Counting costs the system under test.
			if !pause(ctx, max(20*time.Millisecond, min(time.Second, time.Since(begun)*time.Duration(live-late)/time.Duration(max(late, 1))/2))) {
				return fmt.Errorf("%w: the new consumer has %d of %d", ctx.Err(), late, live)
			}
		}
	})
	total := history + writers.committed.Load()
	if err == nil {
		done.Store(2 * total) // what is left is little
		_, err = awaitEffects(ctx, e.pool, &done, 2*total)
	}
	if err := errors.Join(err, both.finish(ctx, e.pool, w, total)); err != nil {
		return nil, err
	}
	return []float64{rate}, nil
}
