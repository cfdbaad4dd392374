package outboxtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/migrations"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
	"github.com/pgoutbox/pgoutbox/workers/outboxtest"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

type note struct {
	N int `json:"n"`
}

const production = time.Hour // a wait between attempts that no test can bear

func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := testdb.Pool(t)
	_, err := pool.Exec(t.Context(), `create table effects (i bigint generated always as identity, consumer text, key text, n int)`)
	require.NoError(t, err)
	return pool
}

func effect(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
	_, err := tx.Exec(ctx, `insert into effects (consumer, key, n) values ($1, $2, $3)`, e.Consumer, e.Key, e.Data.N)
	return err
}

func take(t *testing.T, pool *pgxpool.Pool, key string, ns ...int) {
	t.Helper()
	require.NoError(t, outbox.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		for _, n := range ns {
			if _, err := outbox.Append(t.Context(), tx, outbox.Event{Type: "note.taken", Key: key, Data: note{n}}); err != nil {
				return err
			}
		}
		return nil
	}))
}

func effects(t *testing.T, pool *pgxpool.Pool, consumer, key string) []int {
	t.Helper()
	rows, err := pool.Query(t.Context(), `select n from effects where consumer = $1 and key = $2 order by i`, consumer, key)
	require.NoError(t, err)
	ns, err := pgx.CollectRows(rows, pgx.RowTo[int])
	require.NoError(t, err)
	return ns
}

func operator(t *testing.T, pool *pgxpool.Pool) *outbox.Operator {
	t.Helper()
	jobs, err := workers.NewJobs(pool, "")
	require.NoError(t, err)
	return outbox.NewOperator(pool, jobs, "", nil)
}

// TestAllKindsOfWorkAreDoneWhenItReturns: what it may not overlook is what the one before has only just made.
func TestAllKindsOfWorkAreDoneWhenItReturns(t *testing.T) {
	t.Parallel()
	pool := database(t)
	var mu sync.Mutex
	calls := map[uuid.UUID]int{}
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "mail", func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		mu.Lock()
		defer mu.Unlock()
		if calls[e.ID]++; calls[e.ID] == 1 && e.Data.N == 2 {
			return nil, errors.New("451 later")
		}
		return func(ctx context.Context, tx pgx.Tx) error {
			_, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.mailed", Key: e.Key, Data: e.Data})
			return err
		}, nil
	}, outbox.On("note.taken"), outbox.Backoff(production, production))
	// A chain: each event is answered by another, ten times.
	outbox.Handle(reg, "chain", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if err := effect(ctx, tx, e); err != nil || e.Data.N >= 10 {
			return err
		}
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.mailed", Key: e.Key, Data: note{e.Data.N + 1}})
		return err
	}, outbox.On("note.mailed"))

	take(t, pool, "k", 1, 2, 3)
	report := outboxtest.Settle(t, pool, reg)
	require.Empty(t, report.Dead)
	require.EqualValues(t, 1, report.FailedAttempts)
	require.EqualValues(t, 3+10+9+8, report.Relayed)
	require.Len(t, effects(t, pool, "chain", "k"), 10+9+8)
	require.Len(t, calls, 3)

	// And again, with the next events; what was done is not done again.
	take(t, pool, "k", 10)
	report = outboxtest.Settle(t, pool, reg)
	require.Equal(t, &outboxtest.Report{Relayed: 2, Dead: []outboxtest.DeadLetter{}}, report)
	require.Len(t, effects(t, pool, "chain", "k"), 10+9+8+1)

	// Nothing to do is no reason to wait.
	report = outboxtest.Settle(t, pool, reg)
	require.Equal(t, &outboxtest.Report{Dead: []outboxtest.DeadLetter{}}, report)

	agreed, err := operator(t, pool).Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, agreed.Problems)
}

// TestWhatCannotSucceedIsDead: with the consumer's own number of attempts, without its waits; and the letter is gone from the
// report once its event is replayed.
func TestWhatCannotSucceedIsDead(t *testing.T) {
	t.Parallel()
	pool := database(t)
	broken := true
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "counter", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if broken && e.Data.N == 1 {
			return errors.New("one is broken")
		}
		return effect(ctx, tx, e)
	}, outbox.On("note.taken"), outbox.MaxAttempts(7), outbox.Backoff(production, production))
	outbox.Handle(reg, "poisoned", func(context.Context, pgx.Tx, outbox.Received[note]) error {
		return outbox.Permanent(errors.New("never"))
	}, outbox.On("note.taken"), outbox.OnDead(outbox.Skip))
	outbox.Handle(reg, "default", func(context.Context, pgx.Tx, outbox.Received[struct {
		N string `json:"n"`
	}],
	) error {
		return nil
	}, outbox.On("note.other"))

	take(t, pool, "k", 1, 2, 3)
	require.NoError(t, outbox.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(t.Context(), tx, outbox.Event{Type: "note.other", Key: "undecodable", Data: note{1}})
		return err
	}))
	report := outboxtest.Settle(t, pool, reg)
	byConsumer := map[string][]outboxtest.DeadLetter{}
	for _, d := range report.Dead {
		byConsumer[d.Consumer] = append(byConsumer[d.Consumer], d)
	}
	require.Len(t, byConsumer["counter"], 1)
	d := byConsumer["counter"][0]
	require.Equal(t, `counter: note.taken of "k" is dead after 7 attempts: one is broken`, d.String())
	require.Equal(t, 2, d.Waiting)
	require.Len(t, byConsumer["poisoned"], 3)
	require.Equal(t, 1, byConsumer["poisoned"][0].Attempts)
	require.Len(t, byConsumer["default"], 1)
	require.Equal(t, 25, byConsumer["default"][0].Attempts)
	require.EqualValues(t, 7+3+25, report.FailedAttempts)
	require.Empty(t, effects(t, pool, "counter", "k"))

	broken = false
	_, err := operator(t, pool).Replay(t.Context(), d.ID, nil, outbox.Action{Actor: "anna"})
	require.NoError(t, err)
	report = outboxtest.Settle(t, pool, reg)
	require.NotContains(t, fmt.Sprint(report.Dead), "counter")
	require.Len(t, report.Dead, 4)
	require.Zero(t, report.FailedAttempts)
	require.Equal(t, []int{1, 2, 3}, effects(t, pool, "counter", "k"))
	require.Equal(t, production, reg.Consumer("counter").RetryBase) // the registry is the program's
}

func TestMaxAttemptsForAll(t *testing.T) {
	t.Parallel()
	pool := database(t)
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "mail", func(context.Context, outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, errors.New("550 no such user")
	}, outbox.On("note.taken"), outbox.MaxAttempts(20), outbox.Backoff(production, production))
	take(t, pool, "k", 1, 2)
	report := outboxtest.Settle(t, pool, reg, outboxtest.MaxAttempts(2))
	require.Len(t, report.Dead, 1)
	require.Equal(t, 2, report.Dead[0].Attempts)
	require.Equal(t, 1, report.Dead[0].Waiting)
}

func TestBackfillsAreRun(t *testing.T) {
	t.Parallel()
	pool := database(t)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "counter", effect, outbox.On("note.taken"))
	take(t, pool, "k", 1, 2)
	outboxtest.Settle(t, pool, reg)
	_, err := operator(t, pool).Backfill(t.Context(), "counter", outbox.Backfill{From: outbox.Beginning}, outbox.Action{Actor: "anna", Reason: "a test"})
	require.NoError(t, err)
	outboxtest.Settle(t, pool, reg)
	require.Equal(t, []int{1, 2, 1, 2}, effects(t, pool, "counter", "k"))
}

func TestSchemaOfItsOwn(t *testing.T) {
	t.Parallel()
	url := testdb.Empty(t)
	require.NoError(t, migrations.Up(t.Context(), url, migrations.Options{Schema: "engine"}))
	pool := testdb.PoolOn(t, url)
	var handled []int
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "list", func(_ context.Context, _ pgx.Tx, e outbox.Received[note]) error {
		handled = append(handled, e.Data.N)
		return nil
	}, outbox.On("*"))
	require.NoError(t, outbox.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := outbox.Schema("engine").Append(t.Context(), tx, outbox.Event{Type: "note.taken", Key: "k", Data: note{1}})
		return err
	}))
	report := outboxtest.Settle(t, pool, reg, outboxtest.Schema("engine"))
	require.EqualValues(t, 1, report.Relayed)
	require.Equal(t, []int{1}, handled)
}

// TestNothingIsLeftRunning, and a pool that is in use up to its last connection is no hindrance.
func TestNothingIsLeftRunning(t *testing.T) {
	pool := database(t)
	small := testdb.SmallPool(t, pool, 1)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "counter", effect, outbox.On("note.taken"))
	take(t, pool, "k", 1)
	conn, err := small.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	before := goleak.IgnoreCurrent()
	outboxtest.Settle(t, small, reg)
	goleak.VerifyNone(t, before)
	require.Equal(t, []int{1}, effects(t, pool, "counter", "k"))
}

// recorder is a test that is failed on purpose.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Helper() {}

func (r *recorder) Log(...any) {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failure returns what a Settle fails its test with.
func failure(t *testing.T, pool *pgxpool.Pool, reg *outbox.Registry, opts ...outboxtest.Option) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		outboxtest.Settle(r, pool, reg, opts...)
	}()
	<-done
	require.NotEmpty(t, r.failure, "it came to rest")
	return r.failure
}

// when returns a context that ends when query is true.
func when(t *testing.T, pool *pgxpool.Pool, query string) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() {
		defer cancel()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for yes := false; !yes && t.Context().Err() == nil; <-tick.C {
			if err := pool.QueryRow(t.Context(), query).Scan(&yes); err != nil {
				return
			}
		}
	}()
	return ctx
}

func TestItSaysWhatIsOpen(t *testing.T) {
	t.Parallel()
	pool := database(t)
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "mail", func(context.Context, outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, errors.New("451 later")
	}, outbox.On("note.taken"))
	take(t, pool, "ada", 1, 2)
	said := failure(t, pool, reg, outboxtest.MaxAttempts(1_000_000), outboxtest.Until(when(t, pool,
		`select exists (select from waiting) and exists (select from delivery_log)`)))
	for _, part := range []string{
		"it has not come to rest within 30s", "consumer mail: 1 in flight, 1 waiting, 1 unfinished deliver jobs",
		`mail at note.taken of "ada"`, "the last error: 451 later",
	} {
		require.Contains(t, said, part)
	}
}

func TestAHandlerThatNeverReturns(t *testing.T) {
	t.Parallel()
	pool := database(t)
	ctx, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "heedless", func(context.Context, pgx.Tx, outbox.Received[note]) error {
		giveUp()
		<-never
		return nil
	}, outbox.On("note.taken"))
	take(t, pool, "k", 1)
	said := failure(t, pool, reg, outboxtest.Until(ctx))
	require.Contains(t, said, "consumer heedless: 1 not come to")
	require.Contains(t, said, "a handler ignores that its context has ended")
}

// TestWhatNobodyWillRunIsSaidAtOnce, long before the time is up.
func TestWhatNobodyWillRunIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	pool := database(t)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "counter", effect, outbox.On("note.*"))
	outboxtest.Settle(t, pool, reg)
	take(t, pool, "k", 1)
	require.NoError(t, operator(t, pool).Pause(t.Context(), "counter", outbox.Action{Actor: "anna"}))
	said := failure(t, pool, reg, outboxtest.Within(time.Hour))
	require.Contains(t, said, "it cannot come to rest")
	require.Contains(t, said, "consumer counter: 1 not come to; it is paused")

	require.NoError(t, operator(t, pool).Resume(t.Context(), "counter", outbox.Action{Actor: "anna"}))
	narrower := outbox.NewRegistry()
	outbox.Handle(narrower, "counter", effect, outbox.On("note.taken"))
	said = failure(t, pool, narrower, outboxtest.Within(time.Hour))
	require.Contains(t, said, "consumer counter: 1 not come to; its subscriptions in the database go beyond this registry's code")
}

func TestNoTimeAtAll(t *testing.T) {
	t.Parallel()
	require.Contains(t, failure(t, database(t), outbox.NewRegistry(), outboxtest.Within(time.Nanosecond)), "it has not come to rest within 1ns")
}

func TestWithoutTables(t *testing.T) {
	t.Parallel()
	said := failure(t, testdb.PoolOn(t, testdb.Empty(t)), outbox.NewRegistry())
	require.True(t, strings.Contains(said, "migrations.Up"), said)
}

// What is due is done; what is not is left, with what waits for it.
func TestSettleLeavesWhatIsNotDue(t *testing.T) {
	t.Parallel()
	pool := database(t)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "notes", effect, outbox.On("note.*"))
	later := time.Now().Add(time.Hour)
	outboxtest.Settle(t, pool, reg) // registers the consumer
	require.NoError(t, outbox.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := outbox.AppendAll(t.Context(), tx,
			outbox.Event{Type: "note.taken", Key: "a", Data: note{1}, NotBefore: later},
			outbox.Event{Type: "note.taken", Key: "a", Data: note{2}},
			outbox.Event{Type: "note.taken", Key: "b", Data: note{3}, NotBefore: later, Blocks: true},
			outbox.Event{Type: "note.taken", Key: "b", Data: note{4}},
		)
		return err
	}))
	outboxtest.Settle(t, pool, reg)
	require.Equal(t, []int{2}, effects(t, pool, "notes", "a"))
	require.Empty(t, effects(t, pool, "notes", "b"))
	_, err := pool.Exec(t.Context(), `update scheduled set not_before = clock_timestamp()`)
	require.NoError(t, err)
	outboxtest.Settle(t, pool, reg)
	require.Equal(t, []int{2, 1}, effects(t, pool, "notes", "a"))
}
