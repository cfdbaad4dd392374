package cluster

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func startPair(t *testing.T, synchronous bool) *Pair {
	t.Helper()
	p, err := StartPair(bounded(t), filepath.Join(folder(t), "pair"), synchronous, nil)
	require.NoError(t, err)
	closed(t, p)
	return p
}

// write inserts 1, 2, 3 … one after the other, through whatever happens, until ctx ends. An insert that was not acknowledged is
// repeated; what was is counted.
func write(ctx context.Context, url string, acknowledged *atomic.Int64) {
	for ctx.Err() == nil {
		_ = on(ctx, url, func(conn *pgx.Conn) error {
			for {
				next := acknowledged.Load() + 1
				if _, err := conn.Exec(ctx, `INSERT INTO kept VALUES ($1) ON CONFLICT DO NOTHING`, next); err != nil {
					return err
				}
				acknowledged.Store(next)
			}
		})
	}
}

func TestFailoverKeepsWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	p := startPair(t, true)
	url := p.URL("outbox")
	do(t, url, `CREATE TABLE kept (n int PRIMARY KEY)`)
	ctx, stop := context.WithCancel(bounded(t))
	defer stop()
	var acknowledged atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		write(ctx, url, &acknowledged)
	}()
	goesOn := func() {
		from := acknowledged.Load()
		eventually(t, "the writer goes on", func() bool { return acknowledged.Load() >= from+200 })
	}
	for range 2 { // there and back
		goesOn()
		old, heir := p.Primary(), p.Standby()
		took, err := p.Failover(ctx)
		require.NoError(t, err)
		t.Logf("failover in %s", took)
		require.Equal(t, []*Server{heir, old}, []*Server{p.Primary(), p.Standby()})
		require.False(t, old.Running())
		goesOn() // the new primary waits for nobody
		require.NoError(t, p.Rebuild(ctx))
		require.Equal(t, url, p.URL("outbox"))
	}
	goesOn()
	stop()
	<-ended
	// The writer repeats what was not acknowledged, so a gap is a loss; so is an end before the last acknowledgement.
	count, last := number(t, url, `SELECT count(*) FROM kept`), number(t, url, `SELECT max(n) FROM kept`)
	require.Equal(t, last, count)
	require.GreaterOrEqual(t, last, int(acknowledged.Load()))
}

// With its standby away a synchronous primary keeps its clients waiting.
func TestSynchronousCommitsWait(t *testing.T) {
	t.Parallel()
	p := startPair(t, true)
	ctx, primary := bounded(t), p.Primary().URL("outbox")
	do(t, primary, `CREATE TABLE kept (n int)`)
	require.NoError(t, p.Standby().Kill())
	answer := make(chan error, 1)
	go func() { answer <- execute(ctx, primary, `INSERT INTO kept VALUES (1)`) }()
	require.NoError(t, until(ctx, func() (bool, error) {
		return truth(ctx, primary, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')`)
	}))
	select {
	case err := <-answer:
		t.Fatalf("the commit did not wait: %v", err)
	default:
	}
	require.NoError(t, p.Standby().Restart(ctx))
	require.NoError(t, <-answer)
	standby := p.Standby().URL("outbox")
	eventually(t, "the standby shows it", func() bool { return number(t, standby, `SELECT count(*) FROM kept`) == 1 })
}

// What an asynchronous standby has not received is lost; the new primary goes on without it, and the old one follows.
func TestAsynchronousFailoverLoses(t *testing.T) {
	t.Parallel()
	p := startPair(t, false)
	ctx, url := bounded(t), p.URL("outbox")
	do(t, url, `CREATE TABLE kept (n int)`)
	require.NoError(t, p.await(ctx, `SELECT bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication`))
	require.NoError(t, p.Standby().Kill())
	do(t, url, `INSERT INTO kept VALUES (1)`)
	require.NoError(t, p.Primary().Kill())
	require.NoError(t, p.Standby().Restart(ctx))
	_, err := p.Failover(ctx)
	require.NoError(t, err)
	require.Zero(t, number(t, url, `SELECT count(*) FROM kept`))
	do(t, url, `INSERT INTO kept VALUES (2)`)
	require.NoError(t, p.Rebuild(ctx))
	require.NoError(t, p.await(ctx, `SELECT bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication`))
	require.Equal(t, 2, number(t, p.Standby().URL("outbox"), `SELECT sum(n) FROM kept`))
}
