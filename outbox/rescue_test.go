package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

func (r *rig) oneEvent(n int) uuid.UUID {
	r.t.Helper()
	return one[uuid.UUID](r, `select id from events where (data->>'n')::int = $1`, n)
}

// TestRescuesAreFreeThreeTimes: then each spends an attempt, and the last one ends in a dead letter.
func TestRescuesAreFreeThreeTimes(t *testing.T) {
	t.Parallel()
	r, job := called(t, func(context.Context, outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, nil
	}, outbox.MaxAttempts(2))
	for dies := 1; dies <= 5; dies++ {
		r.begin(job)
		r.hungFor(job, "31 seconds")
		require.NoError(t, r.Maintain(t.Context()))
		spent := max(0, dies-3)
		state := map[bool]string{true: "discarded", false: "available"}[dies == 5]
		r.holds(`select state::text = $2 and attempt = $3 from river_job where id = $1`, job, state, spent)
		r.holds(`select rescues = least($1, 4) from holds`, dies)
		r.agrees()
	}
	r.holds(`select state = 'dead' and jsonb_array_length(errors) = 5 and error like '%process died%' from discarded_jobs`)
	_, err := r.op.Replay(t.Context(), r.letter(1).ID, nil, anna)
	require.NoError(t, err)
	r.holds(`select rescues = 0 from holds`)
	r.settle()
	r.holds(`select not exists (select from holds)`)
	r.agrees()
}

// TestMaintenanceStepsDoNotStopEachOther: a relay is started also where the reconciler meets what it cannot mend.
func TestMaintenanceStepsDoNotStopEachOther(t *testing.T) {
	t.Parallel()
	r, job := inFlight(t)
	r.exec(`alter table discarded_jobs add constraint never check (id < 0)`)
	r.exec(`update river_job set state = 'discarded', finalized_at = now() where id = $1`, job)
	r.exec(`update holds set changed_at = now() - interval '6 seconds'`)
	require.ErrorContains(t, r.Maintain(t.Context()), "reconcile")
	r.holds(`select count(*) = 1 from river_job where kind = 'outbox_relay' and state = 'available'`)
	require.Error(t, r.Maintain(t.Context()))
	r.holds(`select count(*) = 1 from river_job where kind = 'outbox_relay'`)
	// One that beats is left alone, one that fell silent is replaced.
	r.exec(`update river_job set state = 'running', attempted_at = now() - interval '1 hour' where kind = 'outbox_relay'`)
	r.exec(`update relay_state set beat_at = now()`)
	require.Error(t, r.Maintain(t.Context()))
	r.holds(`select count(*) = 1 from river_job where kind = 'outbox_relay'`)
	r.exec(`update relay_state set beat_at = now() - interval '5 seconds'`)
	require.Error(t, r.Maintain(t.Context()))
	r.holds(`select count(*) = 1 from river_job where kind = 'outbox_relay' and state = 'available'`)
}

// drainJob plants a drain's job as River sees it, after it has run for a while, and returns its id.
func (r *rig) drainJob(consumer, key string) int64 {
	r.t.Helper()
	return one[int64](r, `insert into river_job (state, kind, queue, args, attempt, max_attempts, attempted_at)
		values ('running', 'outbox_drain', 'outbox_' || $1::text, jsonb_build_object('consumer', $1::text, 'lane', $2::int), 1, 1, now() - interval '3 seconds')
		returning id`, consumer, r.lane(key))
}

// TestCrashEvidence: each death in a lane halves the batch; an event that is left alone in it goes out of the lane
// unrun, and those behind it are run as ever.
func TestCrashEvidence(t *testing.T) {
	t.Parallel()
	var kill context.CancelFunc
	killer, run := 300, 0
	r := handled(t, func(ctx context.Context, _ pgx.Tx, e outbox.Received[note]) error {
		run++
		if e.Data.N == killer {
			kill()
			return ctx.Err()
		}
		return nil
	}, outbox.Unordered())
	r.fill("k", 600)
	lane := outbox.Lane{Consumer: "c", Lane: r.lane("k")}
	deaths := 0
	for last := 1000; ; deaths++ {
		var ctx context.Context
		ctx, kill = context.WithCancel(t.Context())
		run = 0
		_, err := r.Drain(ctx, lane, -1, time.Minute)
		kill()
		if err == nil {
			break
		}
		require.LessOrEqual(t, run, last)
		last = max(run, 1)
		r.drainJob("c", "k")
		r.until(`select not exists (select from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database()))`) // its backend is gone
	}
	require.LessOrEqual(t, deaths, 10)
	r.holds(`select count(*) = 1 and bool_and(reason = 'suspect' and attempts = 0) from holds`)
	r.holds(`select tries = 0 from cursors where lane = $1 and consumer = 'c'`, lane.Lane)
	r.holds(`select count(*) = 599 from effects`)
	r.holds(`select not exists (select from river_job where kind = 'outbox_drain' and state = 'running')`)
	killer = -1
	r.deliverAll()
	r.holds(`select count(*) = 600 and count(distinct event_id) = 600 from effects`)
	r.agrees()
}

// TestCrashOfALoneEvent: where there is nothing to halve, three deaths are evidence enough. Each is a process.
func TestCrashOfALoneEvent(t *testing.T) {
	t.Parallel()
	var kill context.CancelFunc
	r := handled(t, func(ctx context.Context, _ pgx.Tx, _ outbox.Received[note]) error {
		if kill != nil {
			kill()
		}
		return ctx.Err()
	})
	r.fill("k", 1)
	lane := outbox.Lane{Consumer: "c", Lane: r.lane("k")}
	deaths := 0
	for ; ; deaths++ {
		var ctx context.Context
		ctx, kill = context.WithCancel(t.Context())
		_, err := r.Drain(ctx, lane, -1, time.Minute)
		kill()
		if err == nil {
			break
		}
		r.drainJob("c", "k")
		r.until(`select not exists (select from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database()))`)
	}
	require.Equal(t, 3, deaths)
	r.holds(`select count(*) = 1 and bool_and(reason = 'suspect' and attempts = 0) from holds`)
	kill = nil
	r.deliverAll()
	r.holds(`select count(*) = 1 from processed_events`)
	r.agrees()
}

// TestDrainsThatEndedAreNoEvidence, though River has not written down yet that they did.
func TestDrainsThatEndedAreNoEvidence(t *testing.T) {
	t.Parallel()
	r := handled(t, func(context.Context, pgx.Tx, outbox.Received[note]) error { return nil })
	lane := outbox.Lane{Consumer: "c", Lane: r.lane("k")}
	onItsWay := r.drainJob("c", "k") // to the lock
	r.exec(`update river_job set attempted_at = now() + interval '1 minute' where id = $1`, onItsWay)
	for n := range 3 {
		r.append("k", n)
		r.relay()
		job := r.drainJob("c", "k")
		_, err := r.Drain(t.Context(), lane, job, time.Minute)
		require.NoError(t, err)
		r.holds(`select not exists (select from river_job where id = $1)`, job)
		r.holds(`select state = 'running' from river_job where id = $1`, onItsWay)
	}
	// One that finds the lane taken ends as well.
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	var locked bool
	require.NoError(t, tx.QueryRow(t.Context(), `select pg_try_advisory_xact_lock((tableoid::bigint - 2147483648)::int, id * 64 + $1::int) from consumers`, lane.Lane).Scan(&locked))
	require.True(t, locked)
	job := r.drainJob("c", "k")
	_, err = r.Drain(t.Context(), lane, job, time.Minute)
	require.NoError(t, err)
	r.holds(`select not exists (select from river_job where id = $1)`, job)
	require.NoError(t, tx.Rollback(t.Context()))
	r.holds(`select max(tries) = 0 from cursors`)
}
