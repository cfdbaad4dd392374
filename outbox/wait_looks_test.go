package outbox_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// watched is a pool whose looks are counted. No engine works on it.
type watched struct {
	t    *testing.T
	pool *pgxpool.Pool
	sent *statements
}

func watching(t *testing.T, like *pgxpool.Pool) *watched {
	t.Helper()
	config := like.Config()
	w := &watched{t: t, sent: &statements{}}
	config.ConnConfig.Tracer = w.sent
	var err error
	w.pool, err = pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(w.pool.Close)
	return w
}

// looks is how many statements have asked for events.
func (w *watched) looks() (n int) {
	w.sent.mu.Lock()
	defer w.sent.mu.Unlock()
	for _, sent := range w.sent.sent {
		for _, sql := range sent {
			if strings.HasPrefix(sql, "-- name: WaitStates") {
				n++
			}
		}
	}
	return n
}

// looked waits until another look has begun and found nothing: of what comes now, a later one must tell.
func (w *watched) looked() {
	w.t.Helper()
	before := w.looks()
	require.Eventually(w.t, func() bool { return w.looks() > before+1 }, 20*time.Second, time.Millisecond)
}

// start waits in the background.
func (w *watched) start(ctx context.Context, id uuid.UUID, consumers ...string) <-chan error {
	answer := make(chan error, 1)
	go func() { answer <- outbox.Wait(ctx, w.pool, id, consumers...) }()
	return answer
}

// told requires the answer to come.
func told(t *testing.T, answer <-chan error) error {
	t.Helper()
	select {
	case err := <-answer:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the wait does not end")
		return nil
	}
}

// untold requires that another look has not ended the wait.
func (w *watched) untold(answer <-chan error) {
	w.t.Helper()
	w.looked()
	select {
	case err := <-answer:
		w.t.Fatalf("the wait has ended: %v", err)
	default:
	}
}

// TestWaitIsToldByItsProcess: what is processed here, or given up, is found without another look.
func TestWaitIsToldByItsProcess(t *testing.T) {
	t.Parallel()
	r := failing(t, "c", outbox.MaxAttempts(2))
	w := watching(t, r.pool)
	outbox.OnlyHints(w.pool)
	settled := func(answer <-chan error) {
		t.Helper()
		for before := w.looks(); w.looks() <= before; {
			// Once a look for somebody else has begun, the first one is over.
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			other := w.start(ctx, uuid.New())
			require.Eventually(t, func() bool { return w.looks() > before }, 10*time.Second, time.Millisecond)
			cancel()
			require.ErrorIs(t, told(t, other), context.Canceled)
		}
		require.Empty(t, answer)
	}
	r.exec(`insert into broken values (2), (3), (3)`)
	for n, dead := range map[int]bool{1: false, 2: false, 3: true} {
		id := r.event(fmt.Sprint(n), n)
		r.relay()
		answer := w.start(t.Context(), id, "c")
		require.Eventually(t, func() bool { return w.looks() > 0 }, 10*time.Second, time.Millisecond)
		settled(answer)
		r.drain("c", fmt.Sprint(n))
		if n == 2 {
			settled(answer)
			r.exec(`delete from broken where n = 2`)
			r.deliverAll()
		}
		if err := told(t, answer); dead {
			notProcessed(t, err, id, "c", "dead")
		} else {
			require.NoError(t, err)
		}
	}
}

// TestWaitSeesWhatOthersDo: another process commits, and nothing here tells of it.
func TestWaitSeesWhatOthersDo(t *testing.T) {
	t.Parallel()
	r := on(t, testdb.Pool(t), "c")
	w := watching(t, r.pool)
	one, all := r.event("k", 1), r.event("j", 2)
	waits := []<-chan error{w.start(t.Context(), one, "c"), w.start(t.Context(), all)}
	w.untold(waits[0])
	r.exec(`insert into processed_events (consumer, event_id) values ('c', $1), ('c', $2)`, one, all)
	require.NoError(t, told(t, waits[0]))
	w.untold(waits[1]) // it is not relayed
	r.relay()
	require.NoError(t, told(t, waits[1]))
}

// TestThousandsWaitForThePriceOfOne: the statements are counted, whether this process does the work or, as far as it can
// tell, another one does.
func TestThousandsWaitForThePriceOfOne(t *testing.T) {
	t.Parallel()
	const waiters = 2000
	for name, work := range map[string]func(r *rig, ids []uuid.UUID){
		"here": func(r *rig, _ []uuid.UUID) { r.settle() },
		"elsewhere": func(r *rig, ids []uuid.UUID) {
			for part := range slices.Chunk(ids, 50) {
				r.exec(`insert into processed_events (consumer, event_id) select 'c', unnest($1::uuid[])`, part)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := on(t, testdb.Pool(t), "c")
			w := watching(t, r.pool)
			events := make([]outbox.Event, waiters)
			for i := range events {
				events[i] = outbox.Event{Type: "note.taken", Key: fmt.Sprint("k", i%500), Data: note{i}}
			}
			var ids []uuid.UUID
			require.NoError(t, pgx.BeginFunc(t.Context(), r.pool, func(tx pgx.Tx) (err error) {
				ids, err = outbox.AppendAll(t.Context(), tx, events...)
				return err
			}))
			var done sync.WaitGroup
			errs := make([]error, waiters)
			for i := range waiters {
				done.Go(func() { errs[i] = outbox.Wait(t.Context(), w.pool, ids[i], "c") })
			}
			w.looked()
			began := time.Now()
			work(r, ids)
			done.Wait()
			for _, err := range errs {
				require.NoError(t, err)
			}
			t.Logf("%d waits: %d statements in %v", waiters, w.looks(), time.Since(began))
			require.Less(t, w.looks(), waiters/10)
			require.LessOrEqual(t, w.pool.Stat().NewConnsCount(), int64(2), "one look at a time")
		})
	}
}

// TestNobodyWaitsForNothing: the goroutine ends with the last wait, however that ends. It runs alone.
func TestNobodyWaitsForNothing(t *testing.T) {
	r := on(t, testdb.Pool(t), "c")
	w := watching(t, r.pool)
	pollers := func() int {
		stacks := make([]byte, 1<<20)
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "watch.(*Group[...]).run(")
	}
	require.Zero(t, pollers())
	id := r.event("k", 1)
	ctx, cancel := context.WithCancel(t.Context())
	var left []<-chan error
	for range 50 {
		left = append(left, w.start(ctx, uuid.New(), "c"), w.start(ctx, id, "c"))
	}
	last := w.start(t.Context(), id, "c")
	w.looked()
	require.Equal(t, 1, pollers())
	cancel()
	for _, wait := range left {
		require.ErrorIs(t, told(t, wait), context.Canceled)
	}
	w.untold(last)
	require.Equal(t, 1, pollers())
	r.settle()
	require.NoError(t, told(t, last))
	require.Eventually(t, func() bool { return pollers() == 0 }, 10*time.Second, time.Millisecond)
	// And so it does when the last is not answered.
	ctx, cancel = context.WithCancel(t.Context())
	last = w.start(ctx, uuid.New())
	w.looked()
	cancel()
	require.ErrorIs(t, told(t, last), context.Canceled)
	require.Eventually(t, func() bool { return pollers() == 0 }, 10*time.Second, time.Millisecond)
	require.Zero(t, w.pool.Stat().AcquiredConns())
}
