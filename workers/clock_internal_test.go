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
