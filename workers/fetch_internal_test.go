package workers

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// fetching is a fetcher whose every look but the first is bounded, on the one connection of pool.
func fetching(t *testing.T) (f *fetcher, pool *pgxpool.Pool) {
	t.Helper()
	config, err := pgxpool.ParseConfig(testdb.New(t))
	require.NoError(t, err)
	config.MaxConns = 1
	pool, err = pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	atOnce := func(string, int) time.Duration { return 0 }
	return &fetcher{Executor: riverpgxv5.New(pool).GetExecutor(), db: pool, looks: newLooks(newClock()), begin: atOnce, times: 1e9}, pool
}

func looking(most int) *riverdriver.JobGetAvailableParams {
	return &riverdriver.JobGetAvailableParams{ClientID: "me", Kind: []string{"k"}, MaxAttemptedBy: 3, MaxToLock: most, Queue: "q"}
}

func (f *fetcher) fetch(t *testing.T, most int) (jobs []*rivertype.JobRow) {
	t.Helper()
	res, err := f.JobGetAvailable(t.Context(), looking(most))
	require.NoError(t, err)
	require.Empty(t, res.DecodeErrors)
	return res.Jobs
}

func insertJob(t *testing.T, pool *pgxpool.Pool, set string) (id int64) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), `insert into river_job (state, kind, queue, args, max_attempts, priority, scheduled_at)
		select 'available', 'k', 'q', '{"a": 1}', 3, x.priority, now() - x.late from (select `+set+`) x returning id`).Scan(&id))
	return id
}

// Beside a snapshot that was taken before thousands of jobs were done, a look does not go through them again and again, and finds
// nevertheless what there is.
func TestLooksBesideAnOldSnapshot(t *testing.T) {
	t.Parallel()
	const done = 5000
	f, pool := fetching(t)
	old, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	require.NoError(t, err)
	defer func() { require.NoError(t, old.Close(t.Context())) }()
	_, err = old.Exec(t.Context(), `begin isolation level repeatable read; select from river_job`)
	require.NoError(t, err)
	for _, sql := range []string{
		`insert into river_job (state, kind, queue, args, max_attempts, scheduled_at)
			select 'available', 'k', 'q', '{}', 1, now() - interval '1 minute' from generate_series(1, $1)`,
		`with d as (select $1::int) update river_job set state = 'running'`,
		`with d as (select $1::int) delete from river_job`,
	} {
		_, err := pool.Exec(t.Context(), sql, done)
		require.NoError(t, err)
	}
	looks := func(most int) (ids []int64, read int64) {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		before := entriesIn(t, tx)
		in := *f
		in.Executor, in.db = riverpgxv5.New(pool).UnwrapExecutor(tx), tx
		for _, job := range in.fetch(t, most) {
			ids = append(ids, job.ID)
		}
		read = entriesIn(t, tx) - before
		require.NoError(t, tx.Commit(t.Context()))
		return ids, read
	}
	ids, read := looks(2)
	require.Empty(t, ids)
	require.GreaterOrEqual(t, read, int64(done), "looks at all are cheap: are the bounded ones still needed?")

	first, second := insertJob(t, pool, `1 as priority, interval '2 seconds' as late`), insertJob(t, pool, `1 as priority, interval '1 second' as late`)
	third := insertJob(t, pool, `1 as priority, interval '0' as late`)
	urgent, late := insertJob(t, pool, `2 as priority, interval '0' as late`), insertJob(t, pool, `1 as priority, interval '1 hour' as late`)
	ids, read = looks(2)
	require.ElementsMatch(t, []int64{first, second}, ids)
	require.Less(t, read, int64(100))
	ids, read = looks(2)
	require.Equal(t, []int64{third}, ids)
	require.Less(t, read, int64(100))

	// A look at all finds the others: they are of another priority, or came with a time long past.
	f.looks.set("q", look{})
	ids, _ = looks(2)
	require.ElementsMatch(t, []int64{late, urgent}, ids)
}

// Where a look gets as many jobs as it may, those that it left are not passed over.
func TestBoundedLooksBeginWhereTheLastOneEnded(t *testing.T) {
	t.Parallel()
	f, pool := fetching(t)
	var jobs []int64
	for late := 60; late > 54; late-- {
		jobs = append(jobs, insertJob(t, pool, fmt.Sprintf(`1 as priority, interval '%d minutes' as late`, late)))
	}
	for i := range 3 {
		var ids []int64
		for _, job := range f.fetch(t, 2) {
			ids = append(ids, job.ID)
		}
		require.ElementsMatch(t, jobs[2*i:2*i+2], ids)
	}
	require.Empty(t, f.fetch(t, 2))
}

// What a look takes up, bounded or not, is what River's own would have: the same job, in the same state.
func TestLooksTakeUpWhatRiverDoes(t *testing.T) {
	t.Parallel()
	f, pool := fetching(t)
	require.Empty(t, f.fetch(t, 1))
	bounded := f.looks.get("q")
	for _, by := range []string{`null`, `array['a']`, `array['a', 'b']`, `array['a', 'b', 'c']`, `array['a', 'b', 'c', 'd']`} {
		var got [3]*rivertype.JobRow
		for i, look := range []func() []*rivertype.JobRow{
			func() []*rivertype.JobRow {
				res, err := f.Executor.JobGetAvailable(t.Context(), looking(1))
				require.NoError(t, err)
				return res.Jobs
			},
			func() []*rivertype.JobRow { f.looks.set("q", look{}); return f.fetch(t, 1) },
			func() []*rivertype.JobRow { f.looks.set("q", bounded); return f.fetch(t, 1) },
		} {
			id := insertJob(t, pool, `1 as priority, interval '0' as late`)
			_, err := pool.Exec(t.Context(), `update river_job set attempted_by = `+by+`, attempt = 1, tags = '{x}', metadata = '{"m": 1}',
				errors = array['{"at": "2026-01-01T00:00:00Z", "attempt": 1, "error": "e", "trace": ""}'::jsonb] where id = $1`, id)
			require.NoError(t, err)
			jobs := look()
			require.Len(t, jobs, 1)
			require.Equal(t, id, jobs[0].ID)
			require.WithinDuration(t, time.Now(), *jobs[0].AttemptedAt, time.Minute)
			got[i] = jobs[0]
			got[i].ID, got[i].AttemptedAt, got[i].CreatedAt, got[i].ScheduledAt = 0, nil, time.Time{}, time.Time{}
		}
		require.Equal(t, got[0], got[1])
		require.Equal(t, got[0], got[2])
	}
}

// The commit of a look does not wait for the disk, and what comes after it on the connection does.
func TestLooksCommitLater(t *testing.T) {
	t.Parallel()
	f, pool := fetching(t)
	commits := func(db interface {
		QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	},
	) (how string) {
		require.NoError(t, db.QueryRow(t.Context(), `select current_setting('synchronous_commit')`).Scan(&how))
		return how
	}
	_, err := pool.Exec(t.Context(), `set synchronous_commit = on`) // the pool has one connection
	require.NoError(t, err)
	for range 2 { // the first is at all, the second bounded
		insertJob(t, pool, `1 as priority, interval '0' as late`)
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { _ = tx.Rollback(context.Background()) }) // before the pool is closed, whatever happens
		in := *f
		in.db = tx
		require.Len(t, in.fetch(t, 1), 1)
		require.Equal(t, "off", commits(tx))
		require.NoError(t, tx.Commit(t.Context()))
		require.Equal(t, "on", commits(pool))
	}
}

// entriesIn is how many entries of the index by which jobs are fetched the transaction's connection has read and not yet reported.
func entriesIn(t *testing.T, tx pgx.Tx) (n int64) {
	t.Helper()
	require.NoError(t, tx.QueryRow(t.Context(), `select pg_stat_get_xact_tuples_returned('river_job_prioritized_fetching_index'::regclass)`).Scan(&n))
	return n
}

// What is taken up to begin later says so, and by that its worker knows it.
func TestLooksTakeUpWhatBeginsLater(t *testing.T) {
	t.Parallel()
	f, pool := fetching(t)
	for n, within := range []time.Duration{0, drainLater, drainLater} { // the last look is a bounded one
		f.begin = func(queue string, jobs int) time.Duration {
			require.Equal(t, "q", queue)
			require.Equal(t, 1, jobs)
			return within
		}
		insertJob(t, pool, `1 as priority, interval '0' as late`)
		jobs := f.fetch(t, 1)
		require.Len(t, jobs, 1)
		require.WithinDuration(t, time.Now().Add(within), *jobs[0].AttemptedAt, time.Minute, n)
		require.Equal(t, within > 0, jobs[0].AttemptedAt.After(newClock().Now().Add(drainTime)), n)
	}
}
