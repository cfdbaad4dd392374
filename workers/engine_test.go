package workers_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

type note struct {
	N int `json:"n"`
}

// effects is a table without a unique key: a doubled effect shows.
func effects(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `create table effects (i bigint generated always as identity, consumer text, key text, event_id uuid, n int)`)
	require.NoError(t, err)
}

func effect(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
	_, err := tx.Exec(ctx, `insert into effects (consumer, key, event_id, n) values ($1, $2, $3, $4)`, e.Consumer, e.Key, e.ID, e.Data.N)
	return err
}

func start(t *testing.T, pool *pgxpool.Pool, reg *outbox.Registry, cfg workers.Config) *workers.Workers {
	t.Helper()
	cfg.RetryBase = max(cfg.RetryBase, 10*time.Millisecond)
	cfg.Logger = testLogger(t)
	w, err := workers.New(pool, reg, cfg)
	require.NoError(t, err)
	require.NoError(t, w.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, w.Stop(ctx))
	})
	return w
}

func operator(t *testing.T, pool *pgxpool.Pool) *outbox.Operator {
	t.Helper()
	jobs, err := workers.NewJobs(pool, "")
	require.NoError(t, err)
	return outbox.NewOperator(pool, jobs, "", nil)
}

// eventually waits until query is true.
func eventually(t *testing.T, pool *pgxpool.Pool, query string, args ...any) {
	t.Helper()
	require.Eventually(t, func() bool {
		var ok bool
		require.NoError(t, pool.QueryRow(t.Context(), query, args...).Scan(&ok))
		return ok
	}, 30*time.Second, 10*time.Millisecond, query)
}

func agrees(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	report, err := operator(t, pool).Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Problems)
}

// Drains that take long, as many as there are lanes, leave connections of the pool to others.
func TestDrainsLeaveConnections(t *testing.T) {
	t.Parallel()
	pool := testdb.SmallPool(t, testdb.Pool(t), 6)
	reg := outbox.NewRegistry()
	busy, end := make(chan struct{}, 1000), make(chan struct{})
	for _, name := range []string{"one", "other"} {
		outbox.Handle(reg, name, func(_ context.Context, _ pgx.Tx, _ outbox.Received[note]) error {
			busy <- struct{}{}
			<-end
			return nil
		}, outbox.On("note.*"))
	}
	start(t, pool, reg, workers.Config{})
	t.Cleanup(func() { close(end) }) // before they are told to stop
	for n := range 30 {
		require.NoError(t, outbox.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := outbox.Append(t.Context(), tx, outbox.Event{Type: "note.taken", Key: fmt.Sprint("k", n), Data: note{n}})
			return err
		}))
	}
	require.Eventually(t, func() bool { return len(busy) == 4 }, 30*time.Second, 10*time.Millisecond)
	eventually(t, pool, `select count(*) > 20 from river_job where kind = 'outbox_drain'`)
	require.Len(t, busy, 4)
}

// A drain that finds no room in its process for a while has not died: another process, which takes its lane, does not take the batch for
// one that kills.
func TestDrainThatWaitsForRoomIsNotTakenForDead(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	full, end := make(chan string, 1000), make(chan struct{})
	registry := func(before func(outbox.Received[note])) *outbox.Registry {
		reg := outbox.NewRegistry()
		for _, name := range []string{"one", "other"} {
			outbox.Handle(reg, name, func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
				before(e)
				return effect(ctx, tx, e)
			}, outbox.On("note.*"))
		}
		return reg
	}
	small := testdb.SmallPool(t, pool, 6)
	start(t, small, registry(func(e outbox.Received[note]) {
		full <- e.Consumer + " " + e.Key
		<-end
	}), workers.Config{})
	release := sync.OnceFunc(func() { close(end) })
	t.Cleanup(release) // before they are told to stop
	for n := range 30 {
		require.NoError(t, outbox.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := outbox.Append(t.Context(), tx, outbox.Event{Type: "note.taken", Key: fmt.Sprint("k", n), Data: note{n}})
			return err
		}))
	}
	require.Eventually(t, func() bool { return len(full) == 4 }, 30*time.Second, 10*time.Millisecond)
	eventually(t, pool, `select count(*) > 4 from river_job
		where kind = 'outbox_drain' and state = 'running' and created_at < clock_timestamp() - interval '2 seconds'`)
	// From here on there is no connection in that process on which anything could be said, and that for longer than a drain may take to begin.
	var left []*pgxpool.Conn
	giveBack := func() {
		for _, conn := range left {
			conn.Release()
		}
	}
	defer giveBack()
	for range 2 {
		conn, err := small.Acquire(t.Context())
		require.NoError(t, err)
		left = append(left, conn)
	}
	eventually(t, pool, `select not exists (select from river_job where kind = 'outbox_drain' and state = 'running'
		and attempted_at between clock_timestamp() - interval '1.1 seconds' and clock_timestamp())`)
	start(t, pool, registry(func(outbox.Received[note]) {}), workers.Config{})
	// Each of the four has a lane. All others are worked off, also those of which a drain waits.
	var roomy []string
	for range 4 {
		roomy = append(roomy, <-full)
	}
	eventually(t, pool, `select not exists (select from events e, unnest(array['one', 'other']) c
		where not exists (select from effects f where f.consumer = c and f.key = e.key)
		and not exists (select from events h where h.lane = e.lane and c || ' ' || h.key = any ($1)))`, roomy)
	giveBack()
	release()
	eventually(t, pool, `select count(*) = 60 from effects`)
	// The server ends a transaction that is idle for 10 s: on a slow machine those that had room may pass for dead, and rightly so.
	for len(full) > 0 {
		roomy = append(roomy, <-full)
	}
	var buried int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from river_job j where kind = 'outbox_drain' and state = 'discarded'
		and not exists (select from events e where e.lane = (j.args->>'lane')::integer and (j.args->>'consumer') || ' ' || e.key = any ($1))`, roomy).Scan(&buried))
	require.Zero(t, buried)
	agrees(t, pool)
}

func TestEffectsHappenOnceAndInOrder(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "counter", effect, outbox.On("note.*"))
	outbox.Handle(reg, "queueing", func(ctx context.Context, _ pgx.Tx, e outbox.Received[note]) error {
		outbox.Batch(ctx).Queue(`insert into effects (consumer, key, event_id, n) values ($1, $2, $3, $4)`, e.Consumer, e.Key, e.ID, e.Data.N)
		return nil
	}, outbox.On("note.taken"))
	start(t, pool, reg, workers.Config{})

	var producers sync.WaitGroup
	for p := range 8 {
		producers.Go(func() {
			for n := range 50 {
				err := outbox.InTx(t.Context(), pool, func(tx pgx.Tx) error {
					_, err := outbox.Append(t.Context(), tx, outbox.Event{Type: "note.taken", Key: fmt.Sprint("key-", p), Data: note{n}})
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	producers.Wait()
	eventually(t, pool, `select count(*) >= 800 from effects`)
	agrees(t, pool)

	var doubled, misordered int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from (select consumer, event_id from effects group by 1, 2 having count(*) > 1) d`).Scan(&doubled))
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from (select n - lag(n) over (partition by consumer, key order by i) as step from effects) s where step <> 1`).Scan(&misordered))
	require.Zero(t, doubled)
	require.Zero(t, misordered)
}

func TestFailingEventHoldsItsKeyAloneAndReplaysInOrder(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	_, err := pool.Exec(t.Context(), `create table broken (n int)`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `insert into broken values (1)`)
	require.NoError(t, err)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "counter", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		var broken bool
		if err := tx.QueryRow(ctx, `select exists (select from broken where n = $1) and $2 = 'poisoned'`, e.Data.N, e.Key).Scan(&broken); err != nil {
			return err
		}
		if broken {
			return errors.New("this one is broken\x00")
		}
		return effect(ctx, tx, e)
	}, outbox.On("note.taken"), outbox.MaxAttempts(3))
	start(t, pool, reg, workers.Config{})

	for n := range 5 {
		for _, key := range []string{"poisoned", "healthy"} {
			_, err := pool.Exec(t.Context(), `select outbox_append('note.taken', $1, jsonb_build_object('n', $2::int), 'corr-1')`, key, n)
			require.NoError(t, err)
		}
	}
	eventually(t, pool, `select count(*) = 5 from effects where key = 'healthy'`)
	eventually(t, pool, `select count(*) = 1 from discarded_jobs where state = 'dead'`)
	eventually(t, pool, `select count(*) = 3 from waiting`)
	agrees(t, pool)

	op := operator(t, pool)
	letters, err := op.Letters(t.Context(), outbox.LetterFilter{State: "dead"}, 0, 10)
	require.NoError(t, err)
	require.Len(t, letters, 1)
	letter, err := op.Letter(t.Context(), letters[0].ID)
	require.NoError(t, err)
	require.Equal(t, "corr-1", letter.CorrelationID)
	require.Equal(t, 3, letter.Attempts)
	require.Len(t, letter.Errors, 3)
	require.Equal(t, 3, letter.WaitingCount)

	// A replay that cannot succeed comes back, with its history.
	_, err = op.Replay(t.Context(), letter.ID, nil, outbox.Action{Actor: "anna"})
	require.NoError(t, err)
	_, err = op.Replay(t.Context(), letter.ID, nil, outbox.Action{Actor: "anna"})
	var conflict *outbox.ConflictError
	require.ErrorAs(t, err, &conflict)
	eventually(t, pool, `select count(*) = 1 from discarded_jobs where state = 'dead' and replays = 1 and attempts = 6 and jsonb_array_length(errors) = 6`)
	agrees(t, pool)

	// One whose cause was repaired succeeds, once, and lets the others follow in order.
	_, err = pool.Exec(t.Context(), `delete from broken`)
	require.NoError(t, err)
	_, err = op.Replay(t.Context(), letter.ID, nil, outbox.Action{Actor: "anna", Reason: "repaired"})
	require.NoError(t, err)
	eventually(t, pool, `select count(*) = 5 from effects where key = 'poisoned'`)
	eventually(t, pool, `select not exists (select from holds) and not exists (select from waiting)`)
	eventually(t, pool, `select count(*) = 1 from discarded_jobs where state = 'replayed'`)
	agrees(t, pool)
	var inOrder bool
	require.NoError(t, pool.QueryRow(t.Context(), `select array_agg(n order by i) = '{0,1,2,3,4}' from effects where key = 'poisoned'`).Scan(&inOrder))
	require.True(t, inOrder)
}

func TestExternalDeliveriesAreOrderedAndRecorded(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	var mu sync.Mutex
	calls := map[uuid.UUID]int{}
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "mail", func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		mu.Lock()
		defer mu.Unlock()
		calls[e.ID]++
		if calls[e.ID] == 1 && e.Data.N == 2 {
			return nil, errors.New("451 later")
		}
		return func(ctx context.Context, tx pgx.Tx) error {
			if _, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.mailed", Key: e.Key, Data: e.Data}); err != nil {
				return err
			}
			return effect(ctx, tx, e)
		}, nil
	}, outbox.On("note.taken"))
	outbox.Handle(reg, "after", effect, outbox.On("note.mailed"))
	start(t, pool, reg, workers.Config{})
	ctx := outbox.WithCorrelationID(t.Context(), "the-request")
	require.NoError(t, outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		for n := range 5 {
			if _, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.taken", Key: "k", Data: note{n}}); err != nil {
				return err
			}
		}
		return nil
	}))
	eventually(t, pool, `select count(*) = 10 from effects`)
	eventually(t, pool, `select not exists (select from holds) and not exists (select from waiting)`)
	agrees(t, pool)
	var inOrder, caused bool
	require.NoError(t, pool.QueryRow(t.Context(), `select bool_and(ns = '{0,1,2,3,4}') from (select array_agg(n order by i) as ns from effects group by consumer) s`).Scan(&inOrder))
	require.True(t, inOrder)
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) = 5 and bool_and(m.correlation_id = 'the-request') from events m join events t on t.id = m.causation_id where m.type = 'note.mailed' and t.type = 'note.taken'`).Scan(&caused))
	require.True(t, caused)
}
