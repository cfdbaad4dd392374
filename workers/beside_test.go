package workers_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

var anna = outbox.Action{Actor: "anna", Reason: "a test"}

// answers are what the workers of a process are told of consumers beside their own.
type answers struct{ fn atomic.Value }

func (a *answers) be(fn func() (*outbox.Registry, error)) { a.fn.Store(fn) }

func (a *answers) ask(context.Context) (*outbox.Registry, error) {
	if fn, ok := a.fn.Load().(func() (*outbox.Registry, error)); ok {
		return fn()
	}
	return nil, nil //nolint:nilnil // there are none
}

// of makes the answer consumers of these names, which have the effects under their names and by.
func (a *answers) of(by string, names ...string) {
	a.be(func() (*outbox.Registry, error) {
		reg := outbox.NewRegistry()
		for _, name := range names {
			outbox.HandleExternal(reg, name, func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
				e.Consumer += by
				return func(ctx context.Context, tx pgx.Tx) error { return effect(ctx, tx, e) }, nil
			}, outbox.On("*"))
		}
		return reg, nil
	})
}

func take(t *testing.T, pool *pgxpool.Pool, ns ...int) {
	t.Helper()
	for _, n := range ns {
		require.NoError(t, outbox.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := outbox.Append(t.Context(), tx, outbox.Event{Type: "note.taken", Key: fmt.Sprint("k", n%3), Data: note{n}})
			return err
		}))
	}
}

const applied = `select coalesce(array_agg(n order by n), '{}') = $2::int[] from effects where consumer like $1`

func external(name string, patterns ...string) outbox.NewConsumer {
	return outbox.NewConsumer{Name: name, Kind: outbox.KindExternal, Patterns: patterns, Ordered: true}
}

// Consumers that are made while the workers run are worked by the processes that know of them, and by nobody else; and what becomes of them
// holds for what runs.
func TestConsumersAppearAndGo(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	op := operator(t, pool)
	own := func() *outbox.Registry {
		reg := outbox.NewRegistry()
		outbox.Handle(reg, "own", effect, outbox.On("note.*"))
		return reg
	}
	var one, other answers
	start(t, testdb.SmallPool(t, pool, 8), own(), workers.Config{Consumers: one.ask})
	start(t, testdb.SmallPool(t, pool, 8), own(), workers.Config{Consumers: other.ask})

	// One process knows of it, the other does not yet.
	one.of("/one", "hook", "never-made")
	require.NoError(t, op.Create(t.Context(), external("hook", "note.*"), anna))
	take(t, pool, 1, 2, 3, 4)
	eventually(t, pool, applied, "hook/one", []int{1, 2, 3, 4})
	eventually(t, pool, applied, "own", []int{1, 2, 3, 4})
	// And the other way around.
	other.of("/other", "hook")
	one.of("/one")
	take(t, pool, 5)
	eventually(t, pool, applied, "hook%", []int{1, 2, 3, 4, 5})
	one.of("/one", "hook")

	// Paused, nothing of it goes out; what else there is goes on.
	require.NoError(t, op.Pause(t.Context(), "hook", anna))
	take(t, pool, 6)
	eventually(t, pool, applied, "own", []int{1, 2, 3, 4, 5, 6})
	eventually(t, pool, applied, "hook%", []int{1, 2, 3, 4, 5})
	require.NoError(t, op.Resume(t.Context(), "hook", anna))
	eventually(t, pool, applied, "hook%", []int{1, 2, 3, 4, 5, 6})

	// Other subscriptions, and back.
	require.NoError(t, op.Subscribe(t.Context(), "hook", []string{"order.paid"}, anna))
	take(t, pool, 7)
	eventually(t, pool, applied, "own", []int{1, 2, 3, 4, 5, 6, 7})
	require.NoError(t, op.Subscribe(t.Context(), "hook", []string{"note.taken"}, anna))
	take(t, pool, 8)
	eventually(t, pool, applied, "hook%", []int{1, 2, 3, 4, 5, 6, 8})

	// Removed, and made again under its name at once: all over again, for who knows the old one.
	_, err := op.Remove(t.Context(), "hook", outbox.Action{Actor: "anna", Reason: "a test", Force: true})
	require.NoError(t, err)
	again := external("hook", "note.*")
	again.Start = outbox.Beginning
	require.NoError(t, op.Create(t.Context(), again, anna))
	eventually(t, pool, applied, "hook%", []int{1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 8})
	_, err = op.Remove(t.Context(), "hook", outbox.Action{Actor: "anna", Reason: "a test", Force: true})
	require.NoError(t, err)
	one.of("/one")
	other.of("/other")
	take(t, pool, 9)
	eventually(t, pool, applied, "own", []int{1, 2, 3, 4, 5, 6, 7, 8, 9})
	agrees(t, pool)
}

// A function that fails or panics leaves all as it is, and so does a name that is the code's own.
func TestConsumersCannotBeAskedFor(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	op := operator(t, pool)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "own", effect, outbox.On("note.*"))
	var told answers
	asked := make(chan struct{}, 1)
	then := func(fn func() (*outbox.Registry, error)) {
		told.be(func() (*outbox.Registry, error) {
			select {
			case asked <- struct{}{}:
			default:
			}
			return fn()
		})
		<-asked // perhaps of before
		<-asked
	}
	panics := func() (*outbox.Registry, error) { panic("this is broken") }
	told.be(panics)
	start(t, pool, reg, workers.Config{Consumers: told.ask})
	require.NoError(t, op.Create(t.Context(), external("hook", "note.*"), anna))
	take(t, pool, 1)
	eventually(t, pool, applied, "own", []int{1})
	told.of("/one", "hook", "own")
	eventually(t, pool, applied, "hook/one", []int{1})
	then(panics)
	take(t, pool, 2)
	eventually(t, pool, applied, "hook/one", []int{1, 2})
	then(func() (*outbox.Registry, error) { return nil, errors.New("the database is away") })
	take(t, pool, 3)
	eventually(t, pool, applied, "hook/one", []int{1, 2, 3})
	eventually(t, pool, applied, "own", []int{1, 2, 3})
	agrees(t, pool)
}
