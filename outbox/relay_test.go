package outbox_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

const relayLock = `select pg_advisory_xact_lock((tableoid::bigint - 2147483648)::integer, 0) from relay_state`

// relayUntilItEnds runs a relay that nobody stops; after a while it ends without an error.
func (r *rig) relayUntilItEnds() <-chan error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- r.Relay(ctx, make(chan struct{}))
	}()
	return ended
}

func TestPositionsHaveNoGapsThoughNumbersDo(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	for n := range 30 {
		if n%3 == 0 { // draws a number, and rolls back
			_, _ = r.pool.Exec(t.Context(), `do $$ begin perform outbox_append('a', 'k', '1'); raise exception 'rolled back'; end $$`)
		}
		r.append(fmt.Sprint("k", n%4), n)
		if n%10 == 9 {
			r.relay()
		}
	}
	r.holds(`select count(*) = 30 and min(pos) = 1 and max(pos) = 30 and max(seq) = 40 from events`)
	r.holds(`select head = 30 from relay_state`)
	r.agrees()
}

func TestRelayRefusesToRunBelowWhatWasSeen(t *testing.T) {
	t.Parallel()
	for name, seen := range map[string]string{
		"cursor":  `update cursors set pos = 10 where lane = 5`,
		"hold":    `insert into holds (consumer, event_id, key, lane, pos, reason) values ('c', gen_random_uuid(), 'k', 1, 10, 'failed')`,
		"waiting": `insert into waiting (consumer, key, pos, event_id, lane) values ('c', 'k', 10, gen_random_uuid(), 1)`,
		"log":     `update relay_state set head = 1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := failing(t, "c")
			r.append("k", 1, 2, 3)
			r.relay()
			r.exec(seen)
			r.append("k", 4)
			require.ErrorContains(t, <-r.relayUntilItEnds(), "refuses to run")
			r.holds(`select count(*) = 3 from events`)
		})
	}
}

// TestHeadPutBackUnderARunningRelay stops it as well.
func TestHeadPutBackUnderARunningRelay(t *testing.T) {
	t.Parallel()
	r := failing(t, "c")
	r.append("k", 1, 2, 3)
	ended := r.relayUntilItEnds()
	r.until(`select count(*) = 3 from events`)
	r.exec(`update relay_state set head = 1`)
	r.append("k", 4)
	require.ErrorContains(t, <-ended, "refuses to run")
	r.holds(`select count(*) = 3 from events`)
}

// A crash of the server undoes what was committed without waiting for the disk. The relay goes on from what there is, and moves it again.
func TestRelayGoesOnAfterACrashUndidItsMove(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	stop := r.startRelay()
	for n := 1; n <= 3; n++ {
		r.append("k", n)
		r.until(`select count(*) = $1 from events`, n)
	}
	require.NoError(t, pgx.BeginFunc(t.Context(), r.pool, func(tx pgx.Tx) error {
		for _, sql := range []string{
			relayLock, `update relay_state set head = 1`,
			`with undone as (delete from events where pos > 1 returning *)
			 insert into outbox (seq, id, type, key, data, correlation_id, occurred_at) overriding system value
			 select seq, id, type, key, data, correlation_id, occurred_at from undone`,
		} {
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				return err
			}
		}
		return nil
	}))
	r.append("k", 4)
	r.until(`select count(*) = 4 from events`)
	r.holds(`select array_agg((data->>'n')::int order by pos) = '{1,2,3,4}' from events`)
	require.NoError(t, stop())
	r.agrees()
}

// What the relay knew of cursors may be undone, too: it asks again.
func TestRelayAsksAgainAfterACrashWhatIsBehind(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", effect, outbox.On("note.*"))
	r := newRigOn(t, testdb.PoolOn(t, url), reg, outbox.Config{})
	r.append("k", 1)
	r.relay()
	r.drainAll()
	lane := r.lane("k")
	r.pool = testdb.PoolOn(t, url+"&application_name=survivor") // and the engine has the other
	stop := r.startRelay()
	for n := range 2 { // when it moves the second one, it has seen that no lane was behind
		r.append(one[string](r, `select 'k' || n from generate_series(1, 100) n where (hashtextextended('k' || n, 0) & 63) <> $1 limit 1`, lane), n)
		r.until(`select not exists (select from outbox)`)
	}
	r.exec(`delete from river_job`)
	r.exec(`update cursors set pos = 0 where lane = $1`, lane)
	r.exec(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name <> 'survivor'`)
	r.until(`select exists (select from river_job where kind = 'outbox_drain' and (args->>'lane')::int = $1)`, lane)
	require.NoError(t, stop())
}

// TestRelayThatWaitedReadsAfterwards: while a relay waits for the lock another takes the lead; it must see that.
func TestRelayThatWaitedReadsAfterwards(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	r.append("k", 1)
	r.relay()
	ended := r.relayUntilItEnds()
	r.until(`select token is not null from relay_state`)

	other, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = other.Exec(t.Context(), relayLock)
	require.NoError(t, err)
	r.append("k", 2)
	r.blocked(1)
	_, err = other.Exec(t.Context(), `update relay_state set token = $1`, uuid.New())
	require.NoError(t, err)
	require.NoError(t, other.Commit(t.Context()))
	require.NoError(t, <-ended)
	r.holds(`select count(*) = 1 from outbox`)
}

// A relay that takes the lead knows of no lane whether it was woken. Those with work are, at once; most have only to pass what
// their consumer does not want, and are not all woken before them.
func TestNewRelayWakesLanesWithWorkFirst(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "rare", effect, outbox.On("rare.*"))
	r := newRig(t, reg)
	for n := range 200 {
		r.append(fmt.Sprint("k", n), n)
	}
	r.appendEvent(outbox.Event{Type: "rare.seen", Key: "wanted", Data: note{1}})
	r.relay()
	r.exec(`delete from river_job`)
	stop := r.startRelay()
	const lanes = `select array_agg(distinct (args->>'lane')::int) from river_job where kind = 'outbox_drain'`
	r.until(`select coalesce($1 = any(l), false) from (`+lanes+`) x (l)`, r.lane("wanted"))
	r.holds(`select cardinality(l) < 10 from (` + lanes + `) x (l)`)
	require.NoError(t, stop())

	// It looks at the end of the log alone. Of lanes that are further behind it cannot know.
	r.exec(`insert into outbox (id, type, key, data, correlation_id) select gen_random_uuid(), 'note.taken', 'k', '{}', 'c' from generate_series(1, 10000)`)
	r.relay()
	r.exec(`delete from river_job`)
	stop = r.startRelay()
	r.until(`select count(distinct args->>'lane') > 50 from river_job where kind = 'outbox_drain'`)
	require.NoError(t, stop())
}

// TestTwoRelaysAtOnce lose, double and misorder nothing, whoever leads.
func TestTwoRelaysAtOnce(t *testing.T) {
	t.Parallel()
	r := failing(t, "c")
	var producers, relays sync.WaitGroup
	end := make(chan struct{})
	for range 2 {
		relays.Go(func() {
			for { // each takes the lead from the other again and again
				select {
				case <-end:
					return
				default:
				}
				if err := r.Relay(t.Context(), end); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for p := range 4 {
		producers.Go(func() {
			for n := range 60 {
				r.append(fmt.Sprint("k", p%3), p*1000+n)
			}
		})
	}
	producers.Wait()
	r.until(`select not exists (select from outbox)`)
	close(end)
	relays.Wait()
	r.holds(`select count(*) = 240 and count(distinct id) = 240 and max(pos) = 240 from events`)
	r.holds(`select not exists (select from (select seq - lag(seq) over (partition by key order by pos) as step from events) s where step <= 0)`)
	r.agrees()
}

// TestLateCommitOfALowerNumber: it comes after what overtook it, and nobody passes it by.
func TestLateCommitOfALowerNumber(t *testing.T) {
	t.Parallel()
	r := failing(t, "c")
	early, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = outbox.Append(t.Context(), early, outbox.Event{Type: "note.taken", Key: "slow", Data: note{1}})
	require.NoError(t, err)
	r.append("fast", 2, 3)
	r.settle()
	r.applied("c", "fast", 2, 3)
	r.agrees()
	require.NoError(t, early.Commit(t.Context()))
	r.settle()
	r.applied("c", "slow", 1)
	r.holds(`select (select pos from events where key = 'slow') = 3 and (select seq from events where key = 'slow') = 1`)
	r.agrees()
}

// TestRefusedRowIsSetAsideWithItsKey, and the others flow on.
func TestRefusedRowIsSetAsideWithItsKey(t *testing.T) {
	t.Parallel()
	r := failing(t, "c")
	r.exec(`alter table events add constraint no_thirteen check (data->>'n' <> '13')`)
	for n := range 40 {
		r.append(fmt.Sprint("k", n%4), n)
	}
	stop := r.startRelay()
	r.until(`select not exists (select from outbox)`)
	r.holds(`select array_agg((data->>'n')::int order by seq) = '{13,17,21,25,29,33,37}' from quarantine`)
	r.holds(`select count(*) = 1 from quarantine where error like '%no_thirteen%'`)

	// A row of the key that is committed while the relay is about to move others follows the refused one.
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `lock table events in exclusive mode`)
	require.NoError(t, err)
	r.append("k0", 100)
	r.blocked(1)
	r.append("k1", 101)
	require.NoError(t, tx.Commit(t.Context()))
	r.until(`select not exists (select from outbox)`)
	require.NoError(t, stop())
	r.holds(`select count(*) = 8 from quarantine`)
	r.holds(`select count(*) = 34 and max(pos) = 34 from events`)
	r.settle()
	r.holds(`select count(*) = 34 from effects`)
	report, err := r.op.Check(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Problems, 1)
	require.Equal(t, "quarantined", report.Problems[0].Kind)
}

// TestBrokenTablesPutNoRowAside: that a partition is missing, or that River refuses a job, is no fault of the rows.
func TestBrokenTablesPutNoRowAside(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ damage, mend, rows string }{
		"no partition": {
			`alter table events detach partition events_p0`, `alter table events attach partition events_p0 for values from (0) to (1000000)`,
			`select count(*) = 3 from outbox`,
		},
		"river": {
			`alter table river_job add constraint never check (kind <> 'outbox_drain') not valid`, `alter table river_job drop constraint never`,
			`select count(*) = 3 from events`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := failing(t, "c")
			r.exec(c.damage)
			r.append("k", 1, 2, 3)
			before := one[int64](r, `select xact_rollback from pg_stat_database where datname = current_database()`)
			stop := r.startRelay()
			r.until(`select xact_rollback > $1 + 5 from pg_stat_database where datname = current_database()`, before)
			r.holds(c.rows)
			r.exec(c.mend)
			r.until(`select count(*) = 3 from events`)
			r.until(`select exists (select from river_job where kind = 'outbox_drain')`)
			require.NoError(t, stop())
			r.holds(`select not exists (select from quarantine)`)
		})
	}
}

// TestFullPartition: a batch that ends where the last partition does finds room for its last row.
func TestFullPartition(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	r := newRigOn(t, testdb.Pool(t), outbox.NewRegistry(), outbox.Config{Logger: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelError}))})
	r.exec(`update relay_state set head = partitioned_to - 5000`)
	r.exec(`select outbox_append('note.taken', 'k' || n, '{}') from generate_series(1, 5001) n`)
	r.relay()
	r.holds(`select count(*) = 5001 from events`)
	require.Empty(t, said.String())
}
