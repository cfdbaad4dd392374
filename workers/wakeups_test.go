package workers_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

// TestLostWakeUpsAreGivenAgain: the drain jobs of a lane are gone, and nothing new comes that would wake it.
func TestLostWakeUpsAreGivenAgain(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	_, err := pool.Exec(t.Context(), `create function lose() returns trigger language plpgsql as $$ begin
		if new.kind = 'outbox_drain' and (select count(*) from lost) < 3 then insert into lost values (1); return null; end if; return new; end $$`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `create table lost (n int); create trigger lose before insert on river_job for each row execute function lose()`)
	require.NoError(t, err)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "counter", effect, outbox.On("note.*"))
	start(t, pool, reg, workers.Config{})
	// So many at once that their lanes get jobs.
	_, err = pool.Exec(t.Context(), `select outbox_append('note.taken', 'k' || n, '{"n": 1}') from generate_series(1, 50) n`)
	require.NoError(t, err)
	eventually(t, pool, `select count(*) = 3 from lost`)
	eventually(t, pool, `select count(*) = 50 from effects`)
	agrees(t, pool)
}

// TestIdleServiceInsertsNoJobs watches several beats of the relay, beyond every sweep that follows work.
func TestIdleServiceInsertsNoJobs(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "counter", effect, outbox.On("note.*"))
	outbox.Handle(reg, "other", effect, outbox.On("never"))
	start(t, pool, reg, workers.Config{})
	_, err := pool.Exec(t.Context(), `select outbox_append('note.taken', 'k' || n, '{"n": 1}') from generate_series(1, 50) n`)
	require.NoError(t, err)
	eventually(t, pool, `select count(*) = 50 from effects`)
	eventually(t, pool, `select bool_and(k.pos >= (select coalesce(max(e.pos), 0) from events e where e.lane = k.lane)) from cursors k where consumer = 'counter'`)
	eventually(t, pool, `select not exists (select from river_job where kind = 'outbox_drain' and state in ('available', 'running'))`)
	beats := func(n int) {
		for range n {
			var at time.Time
			require.NoError(t, pool.QueryRow(t.Context(), `select beat_at from relay_state`).Scan(&at))
			eventually(t, pool, `select beat_at > $1 from relay_state`, at)
		}
	}
	beats(4)
	var before, after int64
	require.NoError(t, pool.QueryRow(t.Context(), `select last_value from river_job_id_seq`).Scan(&before))
	beats(4)
	require.NoError(t, pool.QueryRow(t.Context(), `select last_value from river_job_id_seq`).Scan(&after))
	require.Equal(t, before, after)
}

// TestConsumerThatNobodyRuns gets no heap of wake-ups: one for each lane that waits.
func TestConsumerThatNobodyRuns(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	gone := outbox.NewRegistry()
	outbox.Handle(gone, "gone", effect, outbox.On("note.*"))
	jobs, err := workers.NewJobs(pool, "")
	require.NoError(t, err)
	_, err = outbox.NewEngine(pool, gone, jobs, outbox.Config{}).Register(t.Context())
	require.NoError(t, err)
	start(t, pool, outbox.NewRegistry(), workers.Config{})
	_, err = pool.Exec(t.Context(), `select outbox_append('note.taken', 'k', '{"n": 1}')`)
	require.NoError(t, err)
	eventually(t, pool, `select count(*) = 1 from river_job where kind = 'outbox_drain'`)
	var at time.Time
	require.NoError(t, pool.QueryRow(t.Context(), `select clock_timestamp()`).Scan(&at))
	eventually(t, pool, `select beat_at > $1::timestamptz + interval '6 seconds' from relay_state`, at)
	eventually(t, pool, `select count(*) = 1 from river_job where kind = 'outbox_drain'`)

	start(t, pool, gone, workers.Config{})
	eventually(t, pool, `select count(*) = 1 from effects`)
	_, err = pool.Exec(t.Context(), `select outbox_append('note.taken', 'k', '{"n": 2}')`)
	require.NoError(t, err)
	eventually(t, pool, `select count(*) = 2 from effects`)
	agrees(t, pool)
}

// TestPausedConsumer: nothing of it is worked while it is paused, and all of it afterwards.
func TestPausedConsumer(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "mail", func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		if e.Attempt == 1 {
			return nil, errors.New("451 later")
		}
		return func(ctx context.Context, tx pgx.Tx) error { return effect(ctx, tx, e) }, nil
	}, outbox.On("note.*"), outbox.Backoff(time.Second, time.Second))
	outbox.Handle(reg, "counter", effect, outbox.On("note.*"))
	start(t, pool, reg, workers.Config{})
	_, err := pool.Exec(t.Context(), `select outbox_append('note.taken', 'k', '{"n": 1}')`)
	require.NoError(t, err)
	eventually(t, pool, `select exists (select from delivery_log where consumer = 'mail' and outcome = 'failed')`)
	op := operator(t, pool)
	require.NoError(t, op.Pause(t.Context(), "mail", outbox.Action{Actor: "anna"}))
	_, err = pool.Exec(t.Context(), `select outbox_append('note.taken', 'j', '{"n": 2}')`)
	require.NoError(t, err)
	eventually(t, pool, `select count(*) = 2 from effects where consumer = 'counter'`)
	eventually(t, pool, `select scheduled_at < now() from river_job where kind = 'outbox_deliver'`)
	eventually(t, pool, `select attempts = 1 from holds where consumer = 'mail'`)
	agrees(t, pool)
	require.NoError(t, op.Resume(t.Context(), "mail", outbox.Action{Actor: "anna"}))
	eventually(t, pool, `select count(*) = 2 from effects where consumer = 'mail'`)
	agrees(t, pool)
}
