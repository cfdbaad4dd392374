package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

type note struct {
	N int `json:"n"`
}

// rig takes the engine's steps one by one, with River's tables but without its workers: the test decides what runs
// when, and what dies in between.
type rig struct {
	*outbox.Engine
	t    testing.TB
	pool *pgxpool.Pool
	op   *outbox.Operator
	jobs outbox.Jobs
}

func newRig(t testing.TB, reg *outbox.Registry) *rig {
	t.Helper()
	return newRigOn(t, testdb.Pool(t), reg, outbox.Config{})
}

func newRigOn(t testing.TB, pool *pgxpool.Pool, reg *outbox.Registry, cfg outbox.Config) *rig {
	t.Helper()
	jobs, err := workers.NewJobs(pool, cfg.Schema)
	require.NoError(t, err)
	if cfg.RetryBase == 0 {
		cfg.RetryBase, cfg.RetryMax = time.Millisecond, time.Millisecond
	}
	r := &rig{
		Engine: outbox.NewEngine(pool, reg, jobs, cfg), t: t, pool: pool, jobs: jobs,
		op: outbox.NewOperator(pool, jobs, cfg.Schema, nil),
	}
	_, err = r.Register(t.Context())
	require.NoError(t, err)
	r.exec(`create table if not exists effects (i bigint generated always as identity, consumer text, key text, event_id uuid, n int)`)
	return r
}

// effect writes into a table without a unique key: a doubled effect shows.
func effect(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
	_, err := tx.Exec(ctx, `insert into effects (consumer, key, event_id, n) values ($1, $2, $3, $4)`, e.Consumer, e.Key, e.ID, e.Data.N)
	return err
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	_, err := r.pool.Exec(r.t.Context(), sql, args...)
	require.NoError(r.t, err, sql)
}

// holds requires query to be true now.
func (r *rig) holds(query string, args ...any) {
	r.t.Helper()
	require.True(r.t, one[bool](r, query, args...), query)
}

// until waits for query to be true.
func (r *rig) until(query string, args ...any) {
	r.t.Helper()
	// Null is not yet, and no error: that would end the wait's goroutine, and nobody would ask again.
	yes := func() bool { v := one[*bool](r, query, args...); return v != nil && *v }
	require.Eventually(r.t, yes, 20*time.Second, 5*time.Millisecond, query)
}

func one[T any](r *rig, query string, args ...any) (v T) {
	r.t.Helper()
	require.NoError(r.t, r.pool.QueryRow(r.t.Context(), query, args...).Scan(&v), query)
	return v
}

func (r *rig) append(key string, ns ...int) {
	r.t.Helper()
	for _, n := range ns {
		require.NoError(r.t, pgx.BeginFunc(r.t.Context(), r.pool, func(tx pgx.Tx) error {
			_, err := outbox.Append(r.t.Context(), tx, outbox.Event{Type: "note.taken", Key: key, Data: note{n}})
			return err
		}))
	}
}

// startRelay runs a relay until the returned func is called, which returns the relay's error.
func (r *rig) startRelay() (stop func() error) {
	end, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- r.Relay(r.t.Context(), end) }()
	return func() error {
		close(end)
		return <-done
	}
}

// relay moves all that is in the outbox, or due.
func (r *rig) relay() {
	r.t.Helper()
	stop := r.startRelay()
	r.until(`select not exists (select from outbox) and not exists (select from scheduled where not_before <= clock_timestamp())`)
	require.NoError(r.t, stop())
}

func (r *rig) lane(key string) int16 {
	r.t.Helper()
	return one[int16](r, `select (hashtextextended($1, 0) & 63)::int2`, key)
}

func (r *rig) drain(consumer, key string) {
	r.t.Helper()
	_, err := r.Drain(r.t.Context(), outbox.Lane{Consumer: consumer, Lane: r.lane(key)}, 0, time.Minute)
	require.NoError(r.t, err)
}

// lanesWithWork returns every lane that has something to do.
func (r *rig) lanesWithWork() []outbox.Lane {
	r.t.Helper()
	rows, err := r.pool.Query(r.t.Context(), `select k.consumer, k.lane from cursors k join consumers c on c.name = k.consumer
		where c.paused_at is null and (exists (select from events e where e.lane = k.lane and e.pos > k.pos)
		   or exists (select from holds h where h.consumer = k.consumer and h.lane = k.lane and h.settled_at is not null))`)
	require.NoError(r.t, err)
	lanes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[outbox.Lane])
	require.NoError(r.t, err)
	return lanes
}

// drainAll drains them until none has: a drain may leave what is left to a wake-up in the queue, and here nobody works that.
func (r *rig) drainAll() {
	r.t.Helper()
	for lanes := r.lanesWithWork(); len(lanes) > 0; lanes = r.lanesWithWork() {
		for _, l := range lanes {
			_, err := r.Drain(r.t.Context(), l, 0, time.Minute)
			require.NoError(r.t, err)
		}
	}
}

// begin makes a job run, as River does, and returns what it names.
func (r *rig) begin(job int64) (consumer string, event uuid.UUID) {
	r.t.Helper()
	require.NoError(r.t, r.pool.QueryRow(r.t.Context(), `update river_job set state = 'running', attempt = attempt + 1, attempted_at = now()
		where id = $1 and state in ('available', 'scheduled', 'retryable') returning args->>'consumer', (args->>'event_id')::uuid`, job).Scan(&consumer, &event))
	return consumer, event
}

// finish does with a job what River and the worker do with Deliver's answer.
func (r *rig) finish(job int64, err error) {
	r.t.Helper()
	var later *outbox.RetryLaterError
	switch {
	case err == nil:
		r.exec(`update river_job set state = 'completed', finalized_at = now() where id = $1 and state = 'running'`, job)
	case errors.As(err, &later):
		r.exec(`update river_job set state = 'available', attempt = attempt - 1 where id = $1 and state = 'running'`, job)
	case outbox.IsPermanent(err):
		r.exec(`update river_job set state = 'cancelled', finalized_at = now() where id = $1 and state = 'running'`, job)
	default:
		r.exec(`update river_job set state = (case when attempt >= max_attempts then 'discarded' else 'retryable' end)::river_job_state,
			finalized_at = case when attempt >= max_attempts then now() end where id = $1 and state = 'running'`, job)
	}
}

// attempt makes one attempt of a deliver job.
func (r *rig) attempt(job int64) error {
	r.t.Helper()
	consumer, event := r.begin(job)
	err := r.Deliver(r.t.Context(), job, consumer, event)
	r.finish(job, err)
	return err
}

const unfinishedJobs = `select coalesce(array_agg(id order by id), '{}') from river_job where kind = 'outbox_deliver' and state in ('available', 'scheduled', 'retryable')`

// deliverAll makes one attempt of each deliver job that can run.
func (r *rig) deliverAll() (attempts int) {
	r.t.Helper()
	for _, job := range one[[]int64](r, unfinishedJobs) {
		_ = r.attempt(job)
		attempts++
	}
	return attempts
}

// settle goes on until nothing is left to do.
func (r *rig) settle() {
	r.t.Helper()
	for range 200 {
		r.relay()
		r.drainAll()
		if r.deliverAll() == 0 && one[bool](r, `select not exists (select from outbox) and not exists (select from holds where settled_at is not null)`) {
			return
		}
	}
	r.t.Fatal("it never comes to rest")
}

func (r *rig) agrees() {
	r.t.Helper()
	report, err := r.op.Check(r.t.Context())
	require.NoError(r.t, err)
	require.Empty(r.t, report.Problems)
}

// applied requires a consumer's effects for a key to be these, in this order.
func (r *rig) applied(consumer, key string, ns ...int32) {
	r.t.Helper()
	got := one[[]int32](r, `select coalesce(array_agg(n order by i), '{}') from effects where consumer = $1 and key = $2`, consumer, key)
	require.Equal(r.t, append([]int32{}, ns...), append([]int32{}, got...), fmt.Sprintf("%s of %s", consumer, key))
}

func (r *rig) letter(n int) outbox.LetterSummary {
	r.t.Helper()
	id := one[int64](r, `select id from discarded_jobs where (data->>'n')::int = $1`, n)
	l, err := r.op.Letter(r.t.Context(), id)
	require.NoError(r.t, err)
	return l.LetterSummary
}

// failing is a consumer whose handler fails on the numbers in the table broken, for good on those in it twice.
func failing(t *testing.T, name string, opts ...outbox.Option) *rig {
	t.Helper()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, name, func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if err := brokenNow(ctx, tx, e); err != nil {
			return err
		}
		return effect(ctx, tx, e)
	}, append(opts, outbox.On("note.*"))...)
	r := newRig(t, reg)
	r.exec(`create table broken (n int)`)
	return r
}

func brokenNow(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
	var times int
	if err := tx.QueryRow(ctx, `select count(*) from broken where n = $1`, e.Data.N).Scan(&times); err != nil {
		return err
	}
	switch times {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%d is broken", e.Data.N)
	}
	return outbox.Permanent(fmt.Errorf("%d is broken for good", e.Data.N))
}

var anna = outbox.Action{Actor: "anna", Reason: "a test"}

// blocked waits until n backends of the test's database wait for a lock.
func (r *rig) blocked(n int) {
	r.t.Helper()
	r.until(`select count(*) >= $1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`, n)
}

func (r *rig) dismiss(letter int64) *outbox.Dismissal {
	r.t.Helper()
	d, err := r.op.Dismiss(r.t.Context(), letter, anna)
	require.NoError(r.t, err)
	return d
}
