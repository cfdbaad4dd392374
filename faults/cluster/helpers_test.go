package cluster

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// patience is for what has to come about on a machine that is busy with other tests.
const patience = 3 * time.Minute

// folder is one that PostgreSQL's user can reach, which t.TempDir is not when root runs the tests. At the end it must be
// empty: what was made in it is closed, and leaves nothing.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgoutbox-cluster-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("something is left behind: %v", err)
			_ = os.RemoveAll(dir)
		}
	})
	return dir
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func closed(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		require.NoError(t, c.Close(), "once more does no harm")
	})
}

func startServer(t *testing.T, dir string, settings map[string]string, opts ...Option) *Server {
	t.Helper()
	s, err := Start(bounded(t), dir, settings, opts...)
	require.NoError(t, err)
	closed(t, s)
	return s
}

func do(t *testing.T, url string, statements ...string) {
	t.Helper()
	require.NoError(t, execute(bounded(t), url, statements...))
}

func number(t *testing.T, url, sql string) (n int) {
	t.Helper()
	ctx := bounded(t)
	require.NoError(t, on(ctx, url, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, sql).Scan(&n) }))
	return n
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	require.NoError(t, until(bounded(t), func() (bool, error) { return done(), nil }), "never: %s", what)
}
