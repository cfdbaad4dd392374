package workers

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// A LISTEN connection that is lost, however often, comes back without an error, and every queue is told to look for what it missed.
func TestListenerComesBack(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pool, err := pgxpool.New(ctx, testdb.New(t))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	d := newDriver(pool, func() []string { return []string{"a", "b"} }, nil, newClock(), slog.New(slog.DiscardHandler))
	l := d.GetListener(&riverdriver.GetListenenerParams{})
	require.NoError(t, l.Connect(ctx))
	require.NoError(t, l.Listen(ctx, insertTopic))
	require.NoError(t, l.Listen(ctx, "river_control"))
	next := func() string {
		n, err := l.WaitForNotification(ctx)
		require.NoError(t, err)
		return n.Topic + " " + n.Payload
	}
	notify := func(topic, payload string) {
		_, err := pool.Exec(ctx, `select pg_notify(current_schema() || '.' || $1, $2)`, topic, payload)
		require.NoError(t, err)
	}
	told := []string{insertTopic + ` {"queue":"a"}`, insertTopic + ` {"queue":"b"}`}
	for range 2 {
		notify(insertTopic, "sent")
		require.Equal(t, insertTopic+" sent", next())
		_, err := pool.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query like 'LISTEN%'`)
		require.NoError(t, err)
		require.Equal(t, told, []string{next(), next()})
		notify("river_control", "also")
		require.Equal(t, "river_control also", next())
	}
	// What finds it broken outside of a wait says nothing either.
	_, err = pool.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query like 'LISTEN%'`)
	require.NoError(t, err)
	require.NoError(t, l.Ping(ctx))
	require.NoError(t, l.Listen(ctx, "river_more"))
	require.NoError(t, l.Unlisten(ctx, "river_control"))
	require.Equal(t, told, []string{next(), next()})
	notify("river_control", "not this")
	notify("river_more", "but this")
	require.Equal(t, "river_more but this", next())
	ended, end := context.WithCancel(ctx)
	end()
	_, err = l.WaitForNotification(ended)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, l.Close(ctx))
	require.NoError(t, l.Close(ctx))
}
