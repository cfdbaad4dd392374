package cluster

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// A server that dies takes with it what was not committed, and nothing else; it comes back where it was.
func TestDeathsKeepWhatIsCommitted(t *testing.T) {
	t.Parallel()
	s := startServer(t, filepath.Join(folder(t), "pg"), map[string]string{"work_mem": "5MB"})
	url, addr := s.URL("outbox"), s.Addr()
	do(t, url, `CREATE TABLE kept (n int)`)
	var memory, fsync, commit string
	ctx := bounded(t)
	require.NoError(t, on(ctx, url, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT current_setting('work_mem'), current_setting('fsync'), current_setting('synchronous_commit')`).
			Scan(&memory, &fsync, &commit)
	}))
	require.Equal(t, []string{"5MB", "on", "on"}, []string{memory, fsync, commit})

	for n, die := range []func() error{
		s.Kill,
		func() error { return s.Immediate(ctx) },
		func() error { return s.Stop(ctx) },
	} {
		do(t, url, `INSERT INTO kept VALUES (1)`)
		open, err := pgx.Connect(ctx, url)
		require.NoError(t, err)
		_, err = open.Exec(ctx, `BEGIN; INSERT INTO kept VALUES (2)`)
		require.NoError(t, err)

		require.NoError(t, die())
		require.False(t, s.Running())
		require.Empty(t, s.family.pids())
		_, err = open.Exec(ctx, `COMMIT`)
		require.Error(t, err)
		_, err = pgx.Connect(ctx, url)
		require.Error(t, err)
		require.NoError(t, die(), "a dead server dies without complaint")

		require.NoError(t, s.Restart(ctx))
		require.True(t, s.Running())
		require.Equal(t, []string{url, addr}, []string{s.URL("outbox"), s.Addr()})
		require.Equal(t, n+1, number(t, url, `SELECT sum(n) FROM kept`))
	}
	require.NoError(t, s.Restart(ctx), "one that runs is stopped first")
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Restart(ctx), ErrClosed)
}

func TestHungServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, filepath.Join(folder(t), "pg"), nil)
	ctx, url := bounded(t), s.URL("outbox")
	open, err := pgx.Connect(ctx, url)
	require.NoError(t, err)
	_, err = open.Exec(ctx, `SELECT 1`)
	require.NoError(t, err)

	require.NoError(t, s.Hang())
	require.True(t, s.Running())
	for _, pid := range s.family.pids() {
		require.Equal(t, "T", string(state(pid)))
	}
	require.Greater(t, len(s.family.pids()), 3, "the postmaster and its children")
	answer := make(chan error, 1)
	go func() {
		_, err := open.Exec(ctx, `SELECT 1`)
		answer <- err
	}()
	// It is the kernel that takes the connection, and nobody who answers.
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err = pgx.Connect(short, url)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	select {
	case err := <-answer:
		t.Errorf("a hung server answered: %v", err)
	default:
	}

	require.NoError(t, s.Wake())
	require.NoError(t, <-answer, "what was asked meanwhile is answered")
	require.NoError(t, open.Close(ctx))
	do(t, url, `SELECT 1`)

	// Death, order and a new start reach one that hangs.
	for _, end := range []func() error{
		s.Kill,
		func() error { return s.Immediate(ctx) },
		func() error { return s.Stop(ctx) },
		func() error { return nil },
	} {
		require.NoError(t, s.Hang())
		require.NoError(t, end())
		require.NoError(t, s.Restart(ctx))
		do(t, url, `SELECT 1`)
	}
	require.NoError(t, s.Hang()) // and so does Close
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	_, err := Start(bounded(t), filepath.Join(dir, "pg"), map[string]string{"work_mem": "much"})
	require.ErrorContains(t, err, "work_mem")
	require.Empty(t, workingIn(dir))
}
