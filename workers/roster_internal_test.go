package workers

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// A consumer that is removed while an event of it is out is given up without a wait for that, and is worked again once that is over, if it is
// made again; others go on meanwhile.
func TestQueuesAreGivenUpWhileJobsRun(t *testing.T) {
	t.Parallel()
	ctx, pool := t.Context(), testdb.Pool(t)
	begun, goOn := make(chan int, 10), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	var mu sync.Mutex
	names := []string{"slow", "quick"}
	w, err := New(pool, outbox.NewRegistry(), Config{Consumers: func(context.Context) (*outbox.Registry, error) {
		mu.Lock()
		defer mu.Unlock()
		reg := outbox.NewRegistry()
		for _, name := range names {
			outbox.HandleExternal(reg, name, func(_ context.Context, e outbox.Received[struct{}]) (func(context.Context, pgx.Tx) error, error) {
				begun <- len(e.Consumer)
				if e.Consumer == "slow" {
					<-goOn
				}
				return nil, nil
			}, outbox.On("*"), outbox.Timeout(time.Minute))
		}
		return reg, nil
	}})
	require.NoError(t, err)
	op := outbox.NewOperator(pool, jobs{w.client, w.clock}, "", nil)
	anna := outbox.Action{Actor: "anna", Reason: "a test", Force: true}
	slow := outbox.NewConsumer{Name: "slow", Kind: outbox.KindExternal, Patterns: []string{"slow.*"}}
	quick := outbox.NewConsumer{Name: "quick", Kind: outbox.KindExternal, Patterns: []string{"quick.*"}}
	require.NoError(t, op.Create(ctx, slow, anna))
	require.NoError(t, w.Start(ctx))
	t.Cleanup(func() {
		release()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, w.Stop(ctx))
	})
	happens := func(what string) {
		require.NoError(t, outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
			_, err := outbox.Append(ctx, tx, outbox.Event{Type: what + ".went", Key: "k", Data: struct{}{}})
			return err
		}))
	}
	until := func(query string) {
		t.Helper()
		require.Eventually(t, func() (ok bool) {
			require.NoError(t, pool.QueryRow(ctx, query).Scan(&ok))
			return ok
		}, 30*time.Second, 10*time.Millisecond, query)
	}
	happens("slow")
	require.Equal(t, len("slow"), <-begun)

	mu.Lock()
	names = []string{"quick"}
	mu.Unlock()
	require.NoError(t, op.Create(ctx, quick, anna))
	require.Eventually(t, func() bool {
		return slices.Equal(w.roster.queues(), []string{"deliver_quick", "outbox_quick", "outbox_relay"})
	}, 30*time.Second, 10*time.Millisecond)
	require.False(t, w.roster.works("slow"))
	require.True(t, w.roster.unsettled(), "a job of its queue runs")
	happens("quick")
	require.Equal(t, len("quick"), <-begun)

	_, err = op.Remove(ctx, "slow", anna)
	require.NoError(t, err)
	require.NoError(t, op.Create(ctx, slow, anna))
	mu.Lock()
	names = []string{"slow", "quick"}
	mu.Unlock()
	happens("slow")
	require.Eventually(t, func() bool { return w.roster.works("slow") }, 30*time.Second, 10*time.Millisecond)
	release()
	require.Equal(t, len("slow"), <-begun)
	until(`select not exists (select from holds) and not exists (select from outbox)`)
	require.Eventually(t, func() bool { return !w.roster.unsettled() }, 30*time.Second, 10*time.Millisecond)
}

// Whose drains a queue has is in its name, and the relay's has none.
func TestDrainsOf(t *testing.T) {
	t.Parallel()
	for queue, want := range map[string]string{
		outbox.DrainQueue("a"): "a", outbox.DrainQueue("outbox_a"): "outbox_a", outbox.DeliverQueue("a"): "", outbox.RelayQueue: "", "theirs": "",
	} {
		consumer, ok := drainsOf(queue)
		require.Equal(t, want != "", ok, queue)
		if ok {
			require.Equal(t, want, consumer)
		}
	}
}
