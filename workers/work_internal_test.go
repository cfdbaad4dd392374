package workers

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// A drain that finds no room is to begin later, so that nobody takes it for dead, and begins when there is some.
func TestDrainsBeginWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	pool := testdb.SmallPool(t, testdb.Pool(t), 6)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "a", func(context.Context, pgx.Tx, outbox.Received[struct{}]) error { return nil }, outbox.On("x.*"))
	w := newDrainWorker(pool, newClock(), slog.New(slog.DiscardHandler))
	w.engine = outbox.NewEngine(pool, reg, nil, outbox.Config{Logger: slog.New(slog.DiscardHandler)})
	w.givesWay = w.engine.GivesWay
	var job int64
	require.NoError(t, pool.QueryRow(t.Context(), `insert into river_job (state, kind, queue, args, max_attempts, attempted_at)
		values ('running', 'outbox_drain', $1, '{}', 1, clock_timestamp()) returning id`, outbox.DrainQueue("a")).Scan(&job))
	later := func() (later bool) {
		require.NoError(t, pool.QueryRow(t.Context(), `select attempted_at > clock_timestamp() + $2 from river_job where id = $1`, job, drainTime).Scan(&later))
		return later
	}

	require.Zero(t, w.begin(outbox.DrainQueue("a"), 4))
	require.Equal(t, drainLater, w.begin(outbox.DrainQueue("a"), 5), "one of them has to wait")
	require.Zero(t, w.begin(outbox.RelayQueue, 5))
	for range cap(w.room) {
		require.True(t, w.enter(t.Context(), job, false))
	}
	require.False(t, later())
	require.Equal(t, drainLater, w.begin(outbox.DrainQueue("a"), 1))

	entered := make(chan bool, 1)
	wait := func(ctx context.Context, later bool) { entered <- w.enter(ctx, job, later) }
	go wait(t.Context(), false)
	require.Eventually(t, later, 10*time.Second, 10*time.Millisecond)
	require.Empty(t, entered)
	<-w.room
	require.True(t, <-entered)
	require.False(t, later(), "it has begun")

	// One of which that was said when it was taken up begins, too; where it cannot be said, it does not.
	require.True(t, w.say(t.Context(), job, drainLater))
	<-w.room
	require.True(t, w.enter(t.Context(), job, true))
	require.False(t, later())
	ended, end := context.WithCancel(t.Context())
	go wait(ended, true)
	end()
	require.False(t, <-entered)
	<-w.room
	require.False(t, w.enter(ended, job, true))
	require.Len(t, w.room, cap(w.room)-1, "it gives its room back")
}

// Drains of a consumer that give way run one after the other, and a job that waits for its turn is said to begin later.
func TestDrainsGiveWay(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	reg := outbox.NewRegistry()
	w := &drainWorker{}
	var most, handled atomic.Int64
	begun, goOn := make(chan string, 1), make(chan struct{})
	outbox.Handle(reg, "a", func(_ context.Context, _ pgx.Tx, e outbox.Received[struct{}]) error {
		if handled.Add(1) == 1 {
			begun <- e.Key
			<-goOn
		}
		most.Store(max(most.Load(), int64(len(w.room))))
		return nil
	}, outbox.On("x.*"), outbox.Timeout(time.Minute))
	made, err := NewJobs(pool, "")
	require.NoError(t, err)
	w = newDrainWorker(pool, newClock(), slog.New(slog.DiscardHandler))
	w.jobs = made.(jobs)
	w.engine = outbox.NewEngine(pool, reg, made, outbox.Config{Logger: slog.New(slog.DiscardHandler)})
	w.givesWay = func(consumer string) bool { return consumer == "a" }
	_, err = w.engine.Register(t.Context())
	require.NoError(t, err)

	_, err = pool.Exec(t.Context(), `select outbox_append('x.y', k, '{}') from unnest('{k0,k1}'::text[]) k, generate_series(1, 1100)`)
	require.NoError(t, err)
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- w.engine.Relay(t.Context(), stop) }()
	require.Eventually(t, func() (moved bool) {
		require.NoError(t, pool.QueryRow(t.Context(), `select not exists (select from outbox)`).Scan(&moved))
		return moved
	}, 20*time.Second, 10*time.Millisecond)
	close(stop)
	require.NoError(t, <-ended)
	lane := func(key string) outbox.Lane {
		l := outbox.Lane{Consumer: "a"}
		require.NoError(t, pool.QueryRow(t.Context(), `select (hashtextextended($1, 0) & 63)::int2`, key).Scan(&l.Lane))
		return l
	}
	first, second := lane("k0"), lane("k1")
	require.NotEqual(t, first, second)

	require.Equal(t, drainLater, w.begin(outbox.DrainQueue("a"), 1), "they will have to wait")
	var done sync.WaitGroup
	done.Go(func() { w.drain(t.Context(), first, 0, false) })
	require.Equal(t, "k0", <-begun)
	var job int64
	require.NoError(t, pool.QueryRow(t.Context(), `insert into river_job (state, kind, queue, args, max_attempts, attempted_at)
		values ('running', 'outbox_drain', $1, '{}', 1, clock_timestamp()) returning id`, outbox.DrainQueue("a")).Scan(&job))
	done.Go(func() { w.drain(t.Context(), second, job, false) })
	require.Eventually(t, func() (later bool) {
		require.NoError(t, pool.QueryRow(t.Context(), `select attempted_at > clock_timestamp() + $2 from river_job where id = $1`, job, drainTime).Scan(&later))
		return later
	}, 20*time.Second, 10*time.Millisecond)
	require.EqualValues(t, 1, handled.Load(), "the other lane waits")
	close(goOn)
	done.Wait()
	require.Greater(t, handled.Load(), int64(100), "both had their turn")
	require.EqualValues(t, 1, most.Load(), "two drains at once")
}

// The drains of a consumer take turns in a process, so that the next one finds more; a slow one keeps the others for a moment
// only, and those of other consumers not at all.
func TestDrainsTakeTurns(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), "postgres://nowhere.invalid/none") // nothing here asks it for a connection
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	reg := outbox.NewRegistry()
	for _, name := range []string{"a", "b"} {
		outbox.Handle(reg, name, func(context.Context, pgx.Tx, outbox.Received[struct{}]) error { return nil }, outbox.On("x.*"))
	}
	engine := outbox.NewEngine(pool, reg, nil, outbox.Config{Logger: slog.New(slog.DiscardHandler)})
	synctest.Test(t, func(t *testing.T) {
		w := newDrainWorker(pool, newClock(), slog.New(slog.DiscardHandler))
		w.engine, w.givesWay = engine, engine.GivesWay
		begun := time.Now()
		turns := make(chan func(), 1)
		await := func(ctx context.Context) { turns <- w.turn(ctx, "a", w.wait("a")) }

		first := w.turn(t.Context(), "a", w.wait("a"))
		w.turn(t.Context(), "b", w.wait("b"))()
		go await(t.Context())
		synctest.Wait()
		require.Empty(t, turns, "two drains at once")
		first()
		synctest.Wait()
		require.Len(t, turns, 1, "the turn was not given on")
		require.Zero(t, time.Since(begun))

		second := <-turns
		go await(t.Context()) // while the second one has it, and does not end
		third := <-turns
		require.Equal(t, turnWait, time.Since(begun), "the third one waits no longer than that")
		third()
		require.Len(t, w.turns.room("a"), 1, "who has no turn has none to give on")
		second()
		require.Empty(t, w.turns.room("a"))

		ended, end := context.WithCancel(t.Context())
		w.turn(t.Context(), "a", turnWait)
		end()
		begun = time.Now()
		w.turn(ended, "a", turnWait)()
		require.Zero(t, time.Since(begun), "one that is told to end does not wait")
	})
}
