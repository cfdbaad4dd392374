package cluster

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// through is a connection to the pooler that prepares nothing.
func through(t *testing.T, p *Pooler) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(bounded(t), p.URL("outbox")+"&default_query_exec_mode=cache_describe")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(bounded(t)) })
	return conn
}

// startPooler starts one whose last words are shown when the test fails.
func startPooler(t *testing.T, dir, target string, settings map[string]string) *Pooler {
	t.Helper()
	p, err := StartPooler(bounded(t), dir, target, settings)
	require.NoError(t, err)
	closed(t, p)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, logFile))
			t.Logf("the pooler runs: %t; %v; it said: %s", p.Running(), p.cmd.ProcessState, log[max(0, len(log)-4000):])
		}
	})
	return p
}

func TestPooler(t *testing.T) {
	t.Parallel()
	dir, ctx := folder(t), bounded(t)
	s := startServer(t, filepath.Join(dir, "pg"), nil)
	p := startPooler(t, filepath.Join(dir, "pooler"), s.URL("postgres"), map[string]string{"default_pool_size": "1"})
	require.True(t, p.Running())
	one, two := through(t, p), through(t, p)

	// Two clients have one connection of the server, a transaction at a time.
	pid := func(conn *pgx.Conn) (pid int) {
		require.NoError(t, conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid))
		return pid
	}
	require.Equal(t, pid(one), pid(two))
	_, err := one.Exec(ctx, `CREATE TABLE kept (n int)`)
	require.NoError(t, err)
	tx, err := one.Begin(ctx)
	require.NoError(t, err)
	for n := range 3 {
		_, err := tx.Exec(ctx, `INSERT INTO kept VALUES ($1)`, n)
		require.NoError(t, err)
	}
	counted := make(chan error, 1)
	var count int
	go func() { counted <- two.QueryRow(ctx, `SELECT count(*) FROM kept`).Scan(&count) }()
	require.NoError(t, tx.Commit(ctx))
	require.NoError(t, <-counted)
	require.Equal(t, 3, count)

	// The server's death ends the transaction under way, and passes. (A new statement would wait for the server to come back.)
	tx, err = one.Begin(ctx)
	require.NoError(t, err)
	require.NoError(t, s.Kill())
	_, err = tx.Exec(ctx, `SELECT 1`)
	require.Error(t, err)
	require.NoError(t, s.Restart(ctx))
	require.NoError(t, until(ctx, func() (bool, error) {
		n, err := truth(ctx, p.URL("outbox")+"&default_query_exec_mode=exec", `SELECT count(*) = 3 FROM kept`)
		return n, err
	}))

	// So is the pooler's own.
	url := p.URL("outbox")
	open := through(t, p)
	require.NoError(t, p.Restart(ctx))
	_, err = open.Exec(ctx, `SELECT 1`)
	require.Error(t, err)
	require.Equal(t, url, p.URL("outbox"))
	require.Equal(t, pid(through(t, p)), pid(through(t, p)))

	require.NoError(t, p.Hang())
	waiting := make(chan error, 1)
	go func() { waiting <- execute(ctx, url, `SELECT 1`) }()
	require.NoError(t, p.Wake())
	require.NoError(t, <-waiting)
	require.NoError(t, p.Close())
	require.False(t, p.Running())
	require.ErrorIs(t, p.Restart(ctx), ErrClosed)
}

func TestPoolerSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	_, err := StartPooler(bounded(t), filepath.Join(dir, "pooler"), "postgres://u:p@127.0.0.1:1/x", map[string]string{"pool_mode": "none"})
	require.ErrorContains(t, err, "pool_mode")
	require.NoDirExists(t, filepath.Join(dir, "pooler"))
	_, err = StartPooler(bounded(t), filepath.Join(dir, "pooler"), "postgres://u:p@127.0.0.1:1,127.0.0.1:2/x", nil)
	require.ErrorContains(t, err, "several addresses")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}
