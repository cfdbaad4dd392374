package workers

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

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
		w := newDrainWorker(pool, reg, slog.New(slog.DiscardHandler))
		w.engine = engine
		begun := time.Now()
		turns := make(chan func(), 1)
		await := func(ctx context.Context) { turns <- w.turn(ctx, "a") }

		first := w.turn(t.Context(), "a")
		w.turn(t.Context(), "b")()
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
		require.Len(t, w.turns["a"], 1, "who has no turn has none to give on")
		second()
		require.Empty(t, w.turns["a"])

		ended, end := context.WithCancel(t.Context())
		w.turn(t.Context(), "a")
		end()
		begun = time.Now()
		w.turn(ended, "a")()
		require.Zero(t, time.Since(begun), "one that is told to end does not wait")
	})
}
