package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	limitConsumer = "limit"
	limitWorkers  = 4

	// takeThousand is all that has to happen to an event, in one statement for a thousand of them: nobody asks for order, retries
	// or a second consumer.
	takeThousand = `WITH taken AS (
			DELETE FROM queue WHERE id = ANY (ARRAY(SELECT id FROM queue ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED))
			RETURNING event_id, key, data),
		fresh AS (
			INSERT INTO dedupe (consumer, event_id) SELECT $1, event_id FROM taken ON CONFLICT DO NOTHING RETURNING event_id)
		INSERT INTO effects (consumer, key, n, event_id)
		SELECT $1, t.key, (t.data ->> 'n')::bigint, t.event_id FROM taken t JOIN fresh f ON f.event_id = t.event_id`
)

// oneStatementLimit is the most that this PostgreSQL could do.
func oneStatementLimit(ctx context.Context, e *env) ([]float64, error) {
	maker := newMaker(10_000)
	return warmThenTimed(e.size.warmEvents, e.size.limitEvents, func(n int) (time.Duration, error) {
		return takeAll(ctx, e, maker, n)
	})
}

// takeAll fills the queue with so many events and says how long it took to take them.
func takeAll(ctx context.Context, e *env, maker *maker, n int) (time.Duration, error) {
	events, err := maker.make(n)
	if err != nil {
		return 0, err
	}
	_, err = e.pool.CopyFrom(ctx, pgx.Identifier{"queue"}, []string{"event_id", "type", "key", "data"},
		pgx.CopyFromSlice(len(events), func(i int) ([]any, error) {
			data, err := json.Marshal(events[i].data)
			return []any{events[i].id, eventType, events[i].key, data}, err
		}))
	if err != nil {
		return 0, fmt.Errorf("fill the queue: %w", err)
	}
	if err := settle(ctx, e.pool); err != nil {
		return 0, err
	}
	begun := time.Now()
	group, working := errgroup.WithContext(ctx)
	for range limitWorkers {
		group.Go(func() error {
			for {
				tag, err := e.pool.Exec(working, takeThousand, limitConsumer)
				if err != nil || tag.RowsAffected() == 0 {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	return took, expectation{consumers: []string{limitConsumer}, events: maker.count, dedupe: "dedupe"}.check(ctx, e.pool)
}
