package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

var logins = Of{Login, Account}

func limiter(requests int, period time.Duration) *Limiter {
	return New(Limits{logins: {requests, period}})
}

func take(ctx context.Context, t *testing.T, pool *pgxpool.Pool, l *Limiter, subject string) (wait time.Duration) {
	t.Helper()
	require.NoError(t, pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) (err error) {
		wait, err = l.Take(ctx, conn.Conn(), logins, subject)
		return err
	}))
	return wait
}

// However many come at once, to however many processes, as many get through as there may.
func TestTakeAtTheSameTime(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	processes := []*Limiter{limiter(7, 24*time.Hour), limiter(7, 24*time.Hour), limiter(7, 24*time.Hour)}
	var through atomic.Int64
	var all sync.WaitGroup
	errs := make(chan error, 60)
	for i := range cap(errs) {
		all.Go(func() {
			errs <- pool.AcquireFunc(t.Context(), func(conn *pgxpool.Conn) error {
				wait, err := processes[i%len(processes)].Take(t.Context(), conn.Conn(), logins, "ada")
				if err == nil && wait == 0 {
					through.Add(1)
				}
				return err
			})
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.EqualValues(t, 7, through.Load())
	require.Zero(t, take(t.Context(), t, pool, processes[0], "grace"), "another one's count is another")
}

// What was taken comes back evenly, and no more than all of it.
func TestTakeComesBackEvenly(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	passes := func(d time.Duration) {
		_, err := pool.Exec(t.Context(), `update rate_limits set tat = tat - make_interval(secs => $1::float8)`, d.Seconds())
		require.NoError(t, err)
	}
	through := func() (n int, wait time.Duration) {
		for l := limiter(4, 4*time.Hour); n < 10; n++ {
			if wait = take(t.Context(), t, pool, l, "ada"); wait > 0 {
				break
			}
		}
		return n, wait
	}
	n, wait := through()
	require.Equal(t, 4, n)
	require.InDelta(t, time.Hour.Seconds(), wait.Seconds(), 120)
	passes(59 * time.Minute / 2)
	n, wait = through()
	require.Zero(t, n)
	require.InDelta(t, (time.Hour - 59*time.Minute/2).Seconds(), wait.Seconds(), 120)
	passes(time.Hour - 59*time.Minute/2)
	n, _ = through()
	require.Equal(t, 1, n)
	passes(150 * time.Minute)
	n, wait = through()
	require.Equal(t, 2, n)
	require.InDelta(t, (30 * time.Minute).Seconds(), wait.Seconds(), 120)
	passes(1000 * time.Hour)
	n, _ = through()
	require.Equal(t, 4, n)
}

// A refusal writes nothing, and is remembered until it is over; a process remembers only so many.
func TestRefusalsAreRemembered(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	l := limiter(1, time.Hour)
	_, known := l.Known(logins, "ada")
	require.False(t, known)
	require.Zero(t, take(t.Context(), t, pool, l, "ada"))
	_, known = l.Known(logins, "ada")
	require.False(t, known, "that one was let through says nothing of the next")
	version := func() (v string) {
		require.NoError(t, pool.QueryRow(t.Context(), `select ctid::text || tat from rate_limits`).Scan(&v))
		return v
	}
	before := version()
	wait := take(t.Context(), t, pool, l, "ada")
	require.Positive(t, wait)
	require.Equal(t, before, version())
	left, known := l.Known(logins, "ada")
	require.True(t, known)
	require.True(t, left > 0 && left <= wait)
	_, known = l.Known(logins, "grace")
	require.False(t, known)
	wait, known = l.Known(Of{Signup, Address}, "ada")
	require.True(t, known && wait == 0, "what is not limited is let through")

	l.remember(idOf(logins, "ada"), -1)
	_, known = l.Known(logins, "ada")
	require.False(t, known, "it is over")
	require.Empty(t, l.refused)
	for i := range remembered + 100 {
		l.remember(idOf(logins, strconv.Itoa(i)), time.Hour)
	}
	require.Len(t, l.refused, remembered)
	_, known = l.Known(logins, strconv.Itoa(remembered+99))
	require.True(t, known, "the newest is among them")
}

// As soon as a process does not remember a refusal any more, the next is let through.
func TestRefusalsEndWhenTheySay(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	l := limiter(1, 2*time.Second)
	require.Eventually(t, func() bool { return take(t.Context(), t, pool, l, "ada") > 0 }, 20*time.Second, time.Millisecond)
	require.Eventually(t, func() bool {
		_, known := l.Known(logins, "ada")
		return !known
	}, 20*time.Second, time.Millisecond)
	require.Zero(t, take(t.Context(), t, pool, l, "ada"))
}

// A check that is in others' way gives up, and leaves a connection that can go on.
func TestTakeDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	l := limiter(3, time.Hour)
	require.Zero(t, take(t.Context(), t, pool, l, "ada"))
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select from rate_limits for update`)
	require.NoError(t, err)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = l.Take(t.Context(), conn.Conn(), logins, "ada")
	require.Equal(t, "55P03", sqlState(err))
	require.NoError(t, tx.Rollback(t.Context()))
	wait, err := l.Take(t.Context(), conn.Conn(), logins, "ada")
	require.NoError(t, err)
	require.Zero(t, wait)
	require.Equal(t, byte('I'), conn.Conn().PgConn().TxStatus())
}

// A check looks at one row, by its id.
func TestTakePlans(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	_, err := pool.Exec(t.Context(), `insert into rate_limits select sha256(n::text::bytea), now() + interval '1 hour' from generate_series(1, 5000) as n`)
	require.NoError(t, err)
	plan := func(query string, args ...any) (lines string) {
		rows, err := pool.Query(t.Context(), "explain (costs off) "+query, args...)
		require.NoError(t, err)
		for rows.Next() {
			var line string
			require.NoError(t, rows.Scan(&line))
			lines += line + "\n"
		}
		require.NoError(t, rows.Err())
		return lines
	}
	key := idOf(logins, "ada")
	require.Contains(t, plan(shopdb.RateLimitTake, key[:], 1.0, 2.0), "Conflict Arbiter Indexes: rate_limits_pkey")
	require.Contains(t, plan(shopdb.RateLimitWait, 2.0, key[:]), "Index Scan using rate_limits_pkey")
}

func TestIDsAreUnambiguous(t *testing.T) {
	t.Parallel()
	seen := map[id]string{}
	for _, of := range []Of{{"a", "bc"}, {"ab", "c"}, {"abc", ""}, {"", "abc"}} {
		for _, subject := range []string{"", "c", "bc"} {
			what := fmt.Sprintf("%q %q", of, subject)
			require.Empty(t, seen[idOf(of, subject)], what)
			seen[idOf(of, subject)] = what
		}
	}
}

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return fmt.Sprint(err)
}
