package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/handlers/pages"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

const (
	scrapeConsumers = 6
	scrapeLetters   = 10_000
	scrapes         = 300
	overviews       = 100
)

// scrape measures what a scrape of the metrics asks of the database, where every consumer has all that is in the log ahead of it and thousands
// of dead letters, while the relay goes on keeping the numbers, and how long the overview page takes there. The time of a scrape is that of the
// round trip: the server's is less.
func scrape(ctx context.Context, e *env) ([]float64, error) {
	o := ours{style: queueing, consumers: scrapeConsumers, keys: 10_000}
	var done atomic.Int64
	w, err := newWorkers(e.pool, o.registry(&done))
	if err != nil {
		return nil, err
	}
	jobs, err := workers.NewJobs(e.pool, "")
	if err != nil {
		return nil, err
	}
	operator := outbox.NewOperator(e.pool, jobs, "", nil)
	if _, err := w.Engine().Register(ctx); err != nil {
		return nil, err
	}
	for _, name := range o.names() {
		if err := operator.Pause(ctx, name, outbox.Action{Actor: "bench"}); err != nil {
			return nil, err
		}
	}
	if err := w.Start(ctx); err != nil {
		return nil, err
	}
	values, err := scrapeTimes(ctx, e, operator, o)
	return values, errors.Join(err, stopWorkers(ctx, w))
}

func scrapeTimes(ctx context.Context, e *env, operator *outbox.Operator, o ours) ([]float64, error) {
	m := newMaker(o.keys)
	for m.count < int64(e.size.scrapeEvents) {
		events, err := m.make(min(100_000, e.size.scrapeEvents))
		if err != nil {
			return nil, err
		}
		if err := fillOutbox(ctx, e.pool, events); err != nil {
			return nil, err
		}
		outbox.Wake()
	}
	for _, name := range o.names() {
		// Of keys of their own: what is ahead stays as it is.
		if _, err := e.pool.Exec(ctx, `
			WITH dead AS (SELECT gen_random_uuid() AS id, 'dead-' || i AS key, (i % 64)::smallint AS lane FROM generate_series(1, $2::integer) i), held AS (
				INSERT INTO holds (consumer, event_id, key, lane, pos, reason, attempts, dead_at)
				SELECT $1, id, key, lane, 0, 'failed', 25, clock_timestamp() FROM dead)
			INSERT INTO discarded_jobs (consumer, event_id, type, key, lane, pos, data, correlation_id, attempts, errors, error, state)
			SELECT $1, id, 'bench.happened', key, lane, 0, '{}', 'bench', 25, '[]', 'it failed', 'dead' FROM dead`, name, scrapeLetters); err != nil {
			return nil, fmt.Errorf("make dead letters: %w", err)
		}
	}
	if err := scrapeKnows(ctx, operator, m.count); err != nil {
		return nil, err
	}
	if err := settle(ctx, e.pool); err != nil {
		return nil, err
	}
	scraped, err := percentiles(ctx, scrapes, func() error {
		_, err := operator.Stats(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	// The page is judged with letters of one consumer.
	for _, table := range []string{"discarded_jobs", "holds"} {
		if _, err := e.pool.Exec(ctx, "DELETE FROM "+table+" WHERE consumer <> $1", o.names()[0]); err != nil {
			return nil, fmt.Errorf("leave the letters of one consumer: %w", err)
		}
	}
	if err := settle(ctx, e.pool); err != nil {
		return nil, err
	}
	seen, err := percentiles(ctx, overviews, func() error { return lookAtOverview(ctx, e.pool, operator) })
	return append(scraped, seen...), err
}

// percentiles are the 50th and the 99th of the milliseconds that it takes.
func percentiles(ctx context.Context, times int, do func() error) ([]float64, error) {
	var took []float64
	for range times {
		begun := time.Now()
		if err := do(); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(begun).Microseconds())/1000)
		if !pause(ctx, 20*time.Millisecond) {
			return nil, ctx.Err()
		}
	}
	slices.Sort(took)
	return []float64{percentile(took, 0.5), percentile(took, 0.99)}, nil
}

// lookAtOverview signs in to pages that have taken no sample yet, and loads the overview, which takes one.
func lookAtOverview(ctx context.Context, pool *pgxpool.Pool, operator *outbox.Operator) error {
	const token = "a-token-of-the-bench"
	admin := handlers.NewAdmin(handlers.AdminConfig{
		Config: handlers.Config{Pool: pool, Logger: slog.New(slog.DiscardHandler)}, Operator: operator, Tokens: map[string]string{token: "bench"},
	})
	login := httptest.NewRequestWithContext(ctx, http.MethodPost, pages.Root+"/login", strings.NewReader("token="+token))
	login.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answered := httptest.NewRecorder()
	admin.ServeHTTP(answered, login)
	look := httptest.NewRequestWithContext(ctx, http.MethodGet, pages.Root, http.NoBody)
	for _, cookie := range answered.Result().Cookies() {
		look.AddCookie(cookie)
	}
	page := httptest.NewRecorder()
	admin.ServeHTTP(page, look)
	if body := page.Body.String(); page.Code != http.StatusOK || !strings.Contains(body, "dead letters hold their keys") {
		return fmt.Errorf("the overview: %d: %s", page.Code, body)
	}
	return nil
}

// scrapeKnows waits until what is kept is what there is.
func scrapeKnows(ctx context.Context, operator *outbox.Operator, events int64) error {
	for {
		s, err := operator.Stats(ctx)
		if err != nil {
			return err
		}
		behind := slices.ContainsFunc(s.Consumers, func(c outbox.ConsumerStats) bool {
			return c.Lag != events || c.Letters != scrapeLetters || c.HeldKeys != scrapeLetters
		})
		if !behind && s.Outbox == 0 {
			return nil
		}
		if !pause(ctx, 100*time.Millisecond) {
			return fmt.Errorf("%w: kept is %+v", ctx.Err(), *s)
		}
	}
}
