package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

const diskFull = "53100"

func newDisk(t *testing.T, dir string, bytes int64) *Disk {
	t.Helper()
	d, err := NewDisk(bounded(t), dir, bytes)
	require.NoError(t, err)
	closed(t, d)
	return d
}

func TestDisk(t *testing.T) {
	t.Parallel()
	dir, ctx := folder(t), bounded(t)
	d := newDisk(t, filepath.Join(dir, "disk"), 8<<20)
	write := func() error {
		return os.WriteFile(filepath.Join(d.Dir(), "file"), make([]byte, 1<<20), 0o600)
	}
	require.NoError(t, write())
	require.NoError(t, os.Remove(filepath.Join(d.Dir(), "file")))
	for range 2 {
		require.NoError(t, d.Fill(ctx))
		require.NoError(t, d.Fill(ctx), "a full one can be filled")
		require.ErrorIs(t, write(), syscall.ENOSPC)
		require.NoError(t, d.Free())
		require.NoError(t, d.Free(), "and one that was freed, freed")
		require.NoError(t, write())
		require.NoError(t, os.Remove(filepath.Join(d.Dir(), "file")))
	}
	require.NoError(t, write())
	// One that is in use goes all the same, and says so.
	f, err := os.Open(filepath.Join(d.Dir(), "file"))
	require.NoError(t, err)
	require.ErrorIs(t, d.Close(), syscall.EBUSY)
	require.NoError(t, f.Close())
	require.NoDirExists(t, d.Dir())

	closedDir := filepath.Join(dir, "closed")
	require.NoError(t, os.Mkdir(closedDir, 0o700))
	_, err = NewDisk(ctx, filepath.Join(closedDir, "disk"), 8<<20)
	require.ErrorContains(t, err, closedDir)
	_, err = NewDisk(ctx, closedDir, 8<<20)
	require.ErrorIs(t, err, os.ErrExist)
	require.NoError(t, os.Remove(closedDir), "nothing was made in it, and it was not taken away")
}

// PostgreSQL refuses what it has no room for, and goes on once there is room.
func TestDataDiskFull(t *testing.T) {
	t.Parallel()
	dir, ctx := folder(t), bounded(t)
	d := newDisk(t, filepath.Join(dir, "disk"), 128<<20)
	wal := filepath.Join(dir, "wal")
	require.NoError(t, os.Mkdir(wal, 0o755))
	t.Cleanup(func() { require.NoError(t, os.Remove(wal)) })
	s := startServer(t, filepath.Join(d.Dir(), "pg"), nil, WALOn(wal))
	url := s.URL("outbox")
	do(t, url, `CREATE TABLE kept (filler text)`, `ALTER TABLE kept ALTER filler SET STORAGE PLAIN`)
	insert := func() error {
		return execute(ctx, url, `INSERT INTO kept SELECT repeat('x', 7000) FROM generate_series(1, 200)`)
	}
	require.NoError(t, insert())
	require.NoError(t, d.Fill(ctx))
	require.Equal(t, diskFull, sqlState(insert()))
	require.True(t, s.Running())
	require.Equal(t, 200, number(t, url, `SELECT count(*) FROM kept`))
	require.NoError(t, d.Free())
	require.NoError(t, insert())
	require.Equal(t, 400, number(t, url, `SELECT count(*) FROM kept`))
}

// With no room for its log PostgreSQL panics, and again in each recovery, until it gives up or there is room.
func TestLogDiskFull(t *testing.T) {
	t.Parallel()
	dir, ctx := folder(t), bounded(t)
	d := newDisk(t, filepath.Join(dir, "disk"), 96<<20)
	s := startServer(t, filepath.Join(dir, "pg"), map[string]string{
		"min_wal_size": "32MB", "max_wal_size": "48MB", "wal_keep_size": "0",
	}, WALOn(d.Dir()))
	url := s.URL("outbox")
	do(t, url, `CREATE TABLE kept (filler text)`)
	insert := func() error {
		return execute(ctx, url, `INSERT INTO kept SELECT repeat('x', 1000) FROM generate_series(1, 2000)`)
	}
	require.NoError(t, insert())
	acknowledged := 2000
	require.NoError(t, d.Fill(ctx))
	// Room that was set aside in segments is used up first.
	var failed error
	eventually(t, "the log is full", func() bool {
		if failed = insert(); failed == nil {
			acknowledged += 2000
		}
		return failed != nil
	})
	t.Logf("the last insert: %v", failed)
	require.NoError(t, d.Free())
	require.NoError(t, until(ctx, func() (bool, error) {
		if !s.Running() {
			if err := s.Restart(ctx); err != nil {
				return false, err
			}
		}
		err := insert()
		return err == nil, err
	}))
	require.GreaterOrEqual(t, number(t, url, `SELECT count(*) FROM kept`), acknowledged+2000)
}

func sqlState(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}
