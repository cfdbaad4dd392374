package workers

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

func TestClockIsTheDatabases(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), testdb.New(t))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	for _, off := range []time.Duration{0, time.Hour, -8 * 24 * time.Hour} {
		c := newClock()
		c.local = func() time.Time { return time.Now().Add(off) }
		require.NoError(t, c.measure(t.Context(), pool))
		require.InDelta(t, float64(time.Now().Unix()), float64(c.Now().Unix()), 600) // this machine's clock is the database's
		offset := c.offset.Load()
		require.NoError(t, c.measure(t.Context(), pool))
		require.InDelta(t, float64(offset), float64(c.offset.Load()), float64(time.Minute))
	}
	require.Nil(t, newClock().NowOrNil())
}

// A job that is to run at once is due at once, whatever clock the process has that inserts it.
func TestJobsAreDueByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), testdb.New(t))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	for _, kind := range []string{RelayArgs{}.Kind(), DrainArgs{}.Kind(), DeliverArgs{}.Kind()} {
		for _, ahead := range []string{"1 millisecond", "8 days", "-8 days"} {
			var due bool
			require.NoError(t, pool.QueryRow(t.Context(), `insert into river_job (state, kind, args, max_attempts, scheduled_at)
				values ('available', $1, '{}', 1, clock_timestamp() + $2::interval) returning scheduled_at <= clock_timestamp()`, kind, ahead).Scan(&due))
			require.True(t, due, "%s, %s ahead", kind, ahead)
		}
	}
	var later bool
	require.NoError(t, pool.QueryRow(t.Context(), `insert into river_job (state, kind, args, max_attempts, scheduled_at)
		values ('scheduled', 'outbox_deliver', '{}', 1, clock_timestamp() + interval '1 hour') returning scheduled_at > clock_timestamp()`).Scan(&later))
	require.True(t, later, "a retry keeps its time")
}
