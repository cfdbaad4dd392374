package outbox_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// Plans are made once, and perhaps while the tables are new, or when statistics were taken of them while they were empty, which makes
// an index walked from end to end as cheap as one row of it: each of the statements that a batch, an attempt or the look at lanes and jobs
// consists of must come to its rows by an index with all that it knows of them, and not by one that leads to all of a consumer's.
func TestPlansMadeOnEmptyTablesAreGoodForFullOnes(t *testing.T) {
	t.Parallel()
	untold, analyzed := testdb.Pool(t), testdb.Pool(t)
	_, err := analyzed.Exec(t.Context(), "analyze")
	require.NoError(t, err)
	for name, c := range map[string]struct{ query, cond string }{
		"HoldClaim":        {outboxdb.HoldClaim, `holds\n +Index Cond: .*consumer = .*event_id = `},
		"HoldLock":         {outboxdb.HoldLock, `holds\n +Index Cond: .*consumer = .*event_id = `},
		"HoldSettle":       {outboxdb.HoldSettle, `holds\n +Index Cond: .*consumer = .*event_id = `},
		"HoldLift":         {outboxdb.HoldLift, `holds i\n +Index Cond: .*consumer = .*event_id = (?s:.*)waiting w\n +Index Cond: .*consumer = .*key = `},
		"HoldDelete":       {outboxdb.HoldDelete, `holds i\n +Index Cond: .*consumer = .*event_id = `},
		"EventForDelivery": {outboxdb.EventForDelivery, `holds h\n +Index Cond: .*consumer = .*event_id = (?s:.*)events(?s:.*)Index Cond: .*lane = .*pos = `},
		"WaitingRelease":   {outboxdb.WaitingRelease, `waiting i\n +Index Cond: .*consumer = .*key = .*pos = `},
		"DrainWaiting":     {outboxdb.DrainWaiting, `waiting i\n +Index Cond: .*consumer = .*key = (?s:.*)events(?s:.*)Index Cond: .*lane = .*pos = `},
		"DrainSettled":     {outboxdb.DrainSettled, `holds\n +Index Cond: .*lane = .*consumer .*= `},
		"DrainPending":     {outboxdb.DrainPending, `events(?s:.*)Index Cond: .*lane = .*pos > `},
		"DrainCrashed":     {outboxdb.DrainCrashed, `river_job_outbox_running_idx on river_job\n +Index Cond: .*queue = .*lane`},
		"DrainWindow":      {outboxdb.DrainWindow, `events(?s:.*)Index Cond: .*lane = .*pos > `},
		"DrainAdvance":     {outboxdb.DrainAdvance, `events(?s:.*)Index Cond: .*lane = .*pos > `},
		"DeliverStuck":     {outboxdb.DeliverStuck, `river_job j\n +Index Cond: .state = (?s:.*)holds o\n +Index Cond: .job_id = `},
		"HoldsWithoutJob":  {outboxdb.HoldsWithoutJob, `holds_open_idx on holds h\n(?s:.*)river_job_pkey on river_job i\n +Index Cond: .*id (?s:.*)events(?s:.*)Index Cond: .*lane = .*pos = `},
		"LanesSettled":     {outboxdb.LanesSettled, `holds_settled_idx`},
		"LanesBehind":      {outboxdb.LanesBehind, `river_job a\n +Index Cond: .*state = .*queue = .*priority = .*scheduled_at < (?s:.*)SubPlan \d\n +->  CTE Scan on waiting`},
		"LanesQueued":      {outboxdb.LanesQueued, `river_job a\n +Index Cond: .*state = .*queue = .*priority = .*scheduled_at > `},
		"LetterReplayed":   {outboxdb.LetterReplayed, `discarded_jobs\n +Index Cond: .*event_id = `},
		"WaitStates":       {outboxdb.WaitStates, `events_p0_id_idx(?s:.*)Index Cond: \(id = (?s:.*)processed_events\w* p_1\n +Index Cond: .*consumer = .*event_id = (?s:.*)discarded_jobs d\n +Index Cond: .*event_id = `},
		"DeliverAttempts":  {outboxdb.DeliverAttempts, `holds_open_idx(?s:.*)Index Cond: .job_id = (?s:.*)river_job_pkey on river_job i\n +Index Cond: .*id (?s:.*)events(?s:.*)Index Cond: .*lane = .*pos = `},
		"EventsTraced":     {outboxdb.EventsTraced, `events(?s:.*)Index Cond: .*lane = .*pos > .*pos <= `},
		"EventTraceParent": {outboxdb.EventTraceParent, `events(?s:.*)Index Cond: .*lane = .*pos = `},
		"StatsCount":       {outboxdb.StatsCount, `events(?s:.*)Index Cond: .*lane = .*pos > .*pos <= `},
		"StatsRelay":       {outboxdb.StatsRelay, `outbox_pkey on outbox b\n +Index Cond: .*seq > `},
		"StatsAhead":       {outboxdb.StatsAhead, `outbox_pkey on outbox a\n +Index Cond: .*seq > `},
		"ConsumerCounts":   {outboxdb.ConsumerCounts, `events(?s:.*)Index Cond: .*lane = .*pos > (?s:.*)holds b\n +Index Cond: .*consumer = (?s:.*)waiting b\w*\n +Index Cond: .*consumer = `},
		"StatsOldest":      {outboxdb.StatsOldest, `events(?s:.*)Index Cond: .*lane = .*pos > (?s:.*)events(?s:.*)Index Cond: .*lane = .*pos > `},
		"DeliverJobDone":   {outboxdb.DeliverJobDone, `river_job\n +Index Cond: .id = `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, pool := range []*pgxpool.Pool{untold, analyzed} {
				plan := planOf(t, pool.Config().ConnString(), c.query)
				require.NotRegexp(t, `Seq Scan on (holds|waiting|events|river_job|discarded_jobs|processed_events)`, plan)
				require.NotContains(t, plan, "Gather")
				require.Regexp(t, c.cond, plan)
			}
		})
	}
}

// With much waiting behind settled holds, a batch of what is released reads no more of it than it takes, and asks the log for each
// event by its place.
func TestReleaseReadsWhatItTakes(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	for _, sql := range []string{
		`insert into events (pos, seq, id, type, key, lane, data, correlation_id, source, schema_version, occurred_at)
			select i, i, gen_random_uuid(), 'a.b', 'key' || i % 20, i % 64, '{}', 'c', '', 1, now() from generate_series(1, 20000) i`,
		`insert into waiting (consumer, key, pos, event_id, lane) select 'c', key, pos, id, lane from events`,
		`analyze events`, `analyze waiting`,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	plan := planOf(t, pool.Config().ConnString(), outboxdb.DrainWaiting)
	require.NotRegexp(t, `Hash Join|Merge Join|Gather`, plan)

	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), outboxdb.EngineBounds, "30s", "10s")
		require.NoError(t, err)
		rows, err := tx.Query(t.Context(), outboxdb.DrainWaiting, []string{"key3", "key7", "key11"}, "c", 40, 100)
		require.NoError(t, err)
		rows.Close()
		require.Equal(t, int64(100), rows.CommandTag().RowsAffected())
		var waiting, log int64
		require.NoError(t, tx.QueryRow(t.Context(), `select sum(idx_tup_fetch) filter (where relname = 'waiting'),
			sum(idx_tup_fetch) filter (where relname like 'events%') from pg_stat_xact_user_tables`).Scan(&waiting, &log))
		require.Equal(t, int64(3*40), waiting)
		require.Equal(t, int64(100), log)
		return nil
	}))
}

// River's plans are made once a connection, too, and often while there is no job. Maintenance has them made anew when jobs have piled up:
// the look for a few would else read them all.
func TestJobsThatPileUpAreFetchedByTheirIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	r.exec(`delete from river_job`)
	r.exec(`analyze river_job`)
	conn, err := r.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "set plan_cache_mode = force_generic_plan")
	require.NoError(t, err)
	driver := riverpgxv5.New(r.pool)
	fetch := func() (jobs int, read int64) {
		require.NoError(t, pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			before := readOf(t, tx, "river_job")
			got, err := driver.UnwrapExecutor(tx).JobGetAvailable(t.Context(), &riverdriver.JobGetAvailableParams{
				ClientID: "c", MaxAttemptedBy: 10, MaxToLock: 2, Queue: "piled",
			})
			require.NoError(t, err)
			jobs = len(got.Jobs)
			read = readOf(t, tx, "river_job") - before
			return nil
		}))
		return jobs, read
	}
	fetch()
	r.exec(`insert into river_job (state, kind, queue, args, max_attempts) select 'available', 'k', 'piled', '{}', 1 from generate_series(1, 1000)`)
	jobs, read := fetch()
	require.Equal(t, 2, jobs)
	require.GreaterOrEqual(t, read, int64(1000), "no longer how PostgreSQL plans it: is the analysis still needed?")

	// The number of rows reaches the statistics when the session that wrote them has a moment, and no later than its end.
	r.pool.Reset()
	require.Eventually(t, func() bool {
		return one[int64](r, `select n_live_tup from pg_stat_user_tables where relname = 'river_job'`) >= 1000
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, r.Maintain(t.Context()))
	jobs, read = fetch()
	require.Equal(t, 2, jobs)
	require.LessOrEqual(t, read, int64(10))
	// They are analyzed once and not every time.
	r.exec(`delete from river_job where id % 2 = 0`)
	require.NoError(t, r.Maintain(t.Context()))
	r.holds(`select reltuples >= 1000 from pg_class where oid = 'river_job'::regclass`)
}

// readOf is how many rows of a table the connection has read and not yet reported.
func readOf(t *testing.T, tx pgx.Tx, table string) (rows int64) {
	t.Helper()
	require.NoError(t, tx.QueryRow(t.Context(), `select idx_tup_fetch + seq_tup_read from pg_stat_xact_user_tables where relname = $1`, table).Scan(&rows))
	return rows
}

var parameter = regexp.MustCompile(`\$(\d+)`)

// planOf returns how a statement is run under the settings of the engine: what it scans, and by which conditions.
func planOf(t *testing.T, url, query string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(t.Context())) }()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	// Where they would cost nothing, there would be parallel workers.
	_, err = tx.Exec(t.Context(), `set local parallel_setup_cost = 0; set local parallel_tuple_cost = 0;
		set local min_parallel_table_scan_size = 0; set local min_parallel_index_scan_size = 0`)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), outboxdb.EngineBounds, "30s", "10s")
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "prepare statement as "+query, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, p := range parameter.FindAllString(query, -1) {
		seen[p] = true
	}
	execute := "execute statement"
	if len(seen) > 0 {
		execute += "(null" + strings.Repeat(", null", len(seen)-1) + ")"
	}
	rows, err := tx.Query(t.Context(), "explain (costs off) "+execute, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return strings.Join(lines, "\n")
}
