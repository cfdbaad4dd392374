package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

type note struct {
	N int `json:"n"`
}

// riverRig is a process with workers and, on the admin listener, River's UI, in which anna has signed in. Its consumers are ledger, whose
// handler fails on the numbers in the table broken, and mail, which calls the outside: it answers when the gate is open.
type riverRig struct {
	t      *testing.T
	pool   *pgxpool.Pool
	op     *outbox.Operator
	url    string
	client *http.Client
	gate   chan struct{}
	calls  atomic.Int32 // of handlers
}

func newRiverRig(t *testing.T, mails int, cfg workers.Config) *riverRig {
	t.Helper()
	r := &riverRig{t: t, pool: testdb.Pool(t), gate: make(chan struct{})}
	if cfg.PollOnly { // as a pool does that leads through a pooler
		own := r.pool.Config()
		own.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		pool, err := pgxpool.NewWithConfig(t.Context(), own)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		r.pool = pool
	}
	r.exec(`create table effects (i bigint generated always as identity, consumer text, key text, n int)`)
	r.exec(`create table broken (n int)`)
	reg := outbox.NewRegistry()
	effect := func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		_, err := tx.Exec(ctx, `insert into effects (consumer, key, n) values ($1, $2, $3)`, e.Consumer, e.Key, e.Data.N)
		return err
	}
	outbox.Handle(reg, "ledger", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		r.calls.Add(1)
		var broken bool
		if err := tx.QueryRow(ctx, `select exists (select from broken where n = $1)`, e.Data.N).Scan(&broken); err != nil {
			return err
		}
		if broken {
			return errors.New("this one is broken")
		}
		return effect(ctx, tx, e)
	}, outbox.On("note.taken"), outbox.MaxAttempts(3), outbox.Backoff(time.Hour, time.Hour))
	outbox.HandleExternal(reg, "mail", func(ctx context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		r.calls.Add(1)
		select {
		case <-r.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return func(ctx context.Context, tx pgx.Tx) error { return effect(ctx, tx, e) }, nil
	}, outbox.On("note.sent"), outbox.Concurrency(mails), outbox.Timeout(10*time.Minute))

	w, err := workers.New(r.pool, reg, cfg)
	require.NoError(t, err)
	require.NoError(t, w.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, w.Stop(ctx))
	})
	jobs, err := workers.NewJobs(r.pool, "")
	require.NoError(t, err)
	r.op = outbox.NewOperator(r.pool, jobs, "", nil)
	ui, err := newRiverUI(r.pool, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	server := httptest.NewServer(handlers.NewAdmin(handlers.AdminConfig{
		Config:   handlers.Config{Pool: r.pool, Logger: slog.New(slog.DiscardHandler)},
		Operator: r.op, Tokens: map[string]string{"a-token-of-annas": "anna"}, River: ui,
	}))
	t.Cleanup(server.Close)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	r.url, r.client = server.URL, &http.Client{Jar: jar}
	status, _ := r.ask("POST", "/admin/ui/login", url.Values{"token": {"a-token-of-annas"}, "next": {"/admin/river/"}}.Encode())
	require.Equal(t, 200, status)
	return r
}

func (r *riverRig) ask(method, path, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	require.NoError(r.t, err)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if strings.HasPrefix(path, "/admin/ui") {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := r.client.Do(req)
	require.NoError(r.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(r.t, err)
	return res.StatusCode, string(raw)
}

// do has River's UI do something with jobs.
func (r *riverRig) do(action string, status int, jobs ...int64) {
	r.t.Helper()
	body, err := json.Marshal(map[string]any{"ids": jobs})
	require.NoError(r.t, err)
	got, answer := r.ask("POST", "/admin/river/api/jobs/"+action, string(body))
	require.Equal(r.t, status, got, answer)
	r.holds(`select actor = 'anna' and action = $1 from audit order by id desc limit 1`, action)
}

func (r *riverRig) exec(sql string, args ...any) {
	r.t.Helper()
	_, err := r.pool.Exec(r.t.Context(), sql, args...)
	require.NoError(r.t, err, sql)
}

func one[T any](r *riverRig, sql string, args ...any) (v T) {
	r.t.Helper()
	require.NoError(r.t, r.pool.QueryRow(r.t.Context(), sql, args...).Scan(&v), sql)
	return v
}

func (r *riverRig) holds(sql string, args ...any) {
	r.t.Helper()
	require.True(r.t, one[bool](r, sql, args...), sql)
}

func (r *riverRig) until(sql string, args ...any) {
	r.t.Helper()
	// Null is not yet, and no error: that would end the wait's goroutine, and nobody would ask again.
	yes := func() bool { v := one[*bool](r, sql, args...); return v != nil && *v }
	require.Eventually(r.t, yes, 2*time.Minute, 10*time.Millisecond, sql)
}

func (r *riverRig) append(eventType, key string, ns ...int) {
	r.t.Helper()
	require.NoError(r.t, outbox.InTx(r.t.Context(), r.pool, func(tx pgx.Tx) error {
		for _, n := range ns {
			if _, err := outbox.Append(r.t.Context(), tx, outbox.Event{Type: eventType, Key: key, Data: note{n}}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// job is the last job of a key's event.
func (r *riverRig) job(key string) int64 {
	r.t.Helper()
	return one[int64](r, `select j.id from river_job j join events e on e.id = (j.args->>'event_id')::uuid where j.kind = 'outbox_deliver' and e.key = $1 order by j.id desc limit 1`, key)
}

// in waits until each key's event has a job in a state.
func (r *riverRig) in(state string, keys ...string) {
	r.t.Helper()
	r.until(`select count(*) = $2 from river_job j join events e on e.id = (j.args->>'event_id')::uuid join holds h on h.job_id = j.id and h.token is not null
		where j.kind = 'outbox_deliver' and j.state::text = $1 and e.key = any ($3)`, state, len(keys), keys)
}

// dead requires a key's first event to be a dead letter, and those after it to wait, and returns the letter.
func (r *riverRig) dead(key string) int64 {
	r.t.Helper()
	r.until(`select exists (select from discarded_jobs where key = $1 and state = 'dead' and (data->>'n')::int = 0)`, key)
	r.until(`select count(*) = 2 from waiting where key = $1`, key)
	r.agrees()
	return one[int64](r, `select id from discarded_jobs where key = $1`, key)
}

func (r *riverRig) replay(letter int64) {
	r.t.Helper()
	_, err := r.op.Replay(r.t.Context(), letter, nil, outbox.Action{Actor: "anna", Reason: "a test"})
	require.NoError(r.t, err)
}

func (r *riverRig) agrees() {
	r.t.Helper()
	report, err := r.op.Check(r.t.Context())
	require.NoError(r.t, err)
	require.Empty(r.t, report.Problems)
}

// ends requires that all of these keys' events have had their effect, once and in order, and that nothing is left.
func (r *riverRig) ends(keys ...string) {
	r.t.Helper()
	r.until(`select count(*) >= 3 * $1 from effects where key = any ($2)`, len(keys), keys)
	r.until(`select not exists (select from holds) and not exists (select from waiting) and not exists (select from outbox)`)
	r.agrees()
	for _, key := range keys {
		require.Equal(r.t, []int32{0, 1, 2}, one[[]int32](r, `select array_agg(n order by i) from effects where key = $1`, key), key)
	}
}

// ended waits until all of a key has had its effect.
func (r *riverRig) ended(key string) {
	r.t.Helper()
	r.until(`select count(*) = 3 from effects where key = $1`, key)
}
