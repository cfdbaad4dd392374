package watch_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/watch"
)

var errPassing = errors.New("it passes")

// world is what looks find.
type world struct {
	mu    sync.Mutex
	is    map[uuid.UUID]error // decided, and how
	fails error
	looks [][]string    // what each was for
	at    []time.Time   // and when it began
	takes time.Duration // how long each takes
	hangs bool          // until nobody waits any more
}

func (w *world) group(first, last time.Duration) *watch.Group[int] {
	return &watch.Group[int]{
		Look: w.look, Passing: func(err error) bool { return errors.Is(err, errPassing) }, First: first, Last: last,
	}
}

func (w *world) look(ctx context.Context, asked []*watch.Asked[int]) error {
	w.mu.Lock()
	about := []string{}
	for _, a := range asked {
		a.Memo++
		about = append(about, a.About)
		a.Err, a.Done = w.is[a.ID], w.has(a.ID)
	}
	w.looks, w.at = append(w.looks, about), append(w.at, time.Now())
	takes, hangs, fails := w.takes, w.hangs, w.fails
	w.mu.Unlock()
	pass(takes)
	if hangs {
		<-ctx.Done()
		return errPassing
	}
	return fails
}

func (w *world) has(id uuid.UUID) bool { _, has := w.is[id]; return has }

// seen is what the looks were for.
func (w *world) seen() [][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.looks)
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// pass lets time go by on the clock of the bubble, which takes none: it moves on when everybody in it waits.
func pass(d time.Duration) { <-time.After(d) }

func wait(g *watch.Group[int], ctx context.Context, id uuid.UUID, about string) <-chan error {
	answer := make(chan error, 1)
	go func() { answer <- g.Wait(ctx, id, about) }()
	return answer
}

// The clock of these tests stands still while anything can go on.

func TestLooksAreSharedAndBecomeRarer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := &world{is: map[uuid.UUID]error{}}, uuid.New()
		g := w.group(10*time.Millisecond, 160*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var waits []<-chan error
		for range 1000 {
			waits = append(waits, wait(g, ctx, uuid.New(), "x"))
		}
		same, other := []<-chan error{wait(g, ctx, id, "x"), wait(g, ctx, id, "x")}, wait(g, ctx, id, "y")
		pass(2 * time.Second)
		synctest.Wait()
		w.set(func() {
			require.Less(t, len(w.looks), 20)
			require.Len(t, w.looks[len(w.looks)-1], 1002, "what two wait for is asked for once")
			require.Less(t, w.at[1].Sub(w.at[0]), 11*time.Millisecond)
			require.GreaterOrEqual(t, w.at[len(w.at)-1].Sub(w.at[len(w.at)-2]), 160*time.Millisecond)
			w.is[id] = nil
		})
		for _, answer := range append(same, other) {
			require.NoError(t, <-answer)
		}
		// One that comes later is looked for soon, whatever the others' pauses.
		began := time.Now()
		require.NoError(t, g.Wait(ctx, id, "late"))
		require.Less(t, time.Since(began), 10*time.Millisecond)
		for _, answer := range waits {
			require.ErrorIs(t, <-answer, context.DeadlineExceeded)
		}
		require.Equal(t, 10*time.Second, time.Since(began).Round(time.Second)+2*time.Second)
		synctest.Wait() // the bubble ends only when no goroutine is left
	})
}

func TestHintIsNotLostInALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := &world{is: map[uuid.UUID]error{}, takes: time.Second}, uuid.New()
		g := w.group(time.Hour, time.Hour)
		g.Hint(id) // of no use to anybody
		unmoved := wait(g, t.Context(), uuid.New(), "unmoved")
		pass(5 * time.Second)
		answer := wait(g, t.Context(), id, "hinted at")
		pass(500 * time.Millisecond) // in the look, which has found nothing
		w.set(func() { w.is[id] = nil })
		g.Hint(id)
		pass(5 * time.Second)
		select {
		case err := <-answer:
			require.NoError(t, err)
		default:
			t.Fatal("the hint is lost")
		}
		require.Equal(t, [][]string{{"unmoved"}, {"hinted at"}, {"hinted at"}}, w.seen())
		g.Hint(id)
		require.Empty(t, unmoved)
		g.Hint(uuid.New())
		pass(5 * time.Second)
		require.Len(t, w.seen(), 3)
	})
}

func TestLooksThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := &world{is: map[uuid.UUID]error{}, fails: errPassing}, uuid.New()
		g := w.group(10*time.Millisecond, 100*time.Millisecond)
		answer := wait(g, t.Context(), id, "")
		pass(10 * time.Second)
		synctest.Wait()
		require.Empty(t, answer)
		require.Less(t, len(w.seen()), 15, "an outage is not hammered at")
		require.Greater(t, len(w.seen()), 8)
		w.set(func() { w.fails = nil })
		pass(time.Second)
		looks := len(w.seen())
		pass(time.Second)
		require.Greater(t, len(w.seen()), looks+5, "afterwards all is as before")

		for _, lasting := range []error{errors.New("the table is gone"), errors.New("and stays so")} {
			w.set(func() { w.fails = lasting })
			require.ErrorIs(t, <-answer, lasting)
			w.set(func() { w.fails = nil })
			answer = wait(g, t.Context(), id, "")
		}
		never := errors.New("never")
		w.set(func() { w.is[id] = never })
		require.ErrorIs(t, <-answer, never)
	})
}

func TestWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := &world{is: map[uuid.UUID]error{}, hangs: true}, uuid.New()
		g := w.group(time.Hour, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, g.Wait(ctx, id, ""), context.Canceled)
		require.Empty(t, w.looks)

		// The last takes the look along: the bubble would not end otherwise.
		ctx, cancel = context.WithCancel(t.Context())
		first, second := wait(g, ctx, id, ""), wait(g, t.Context(), id, "")
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
		synctest.Wait()
		require.Empty(t, second)
		ctx, cancel = context.WithCancel(t.Context())
		third := wait(g, ctx, uuid.New(), "")
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-third, context.Canceled)
		w.set(func() { w.is[id], w.hangs = nil, false })
		require.Len(t, w.seen(), 1)
		w.set(func() { w.hangs = true })
		g2 := w.group(time.Hour, time.Hour)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g2.Wait(ctx, uuid.New(), ""), context.DeadlineExceeded)
		synctest.Wait()

		// Who comes right after finds it running, or has it started.
		w.set(func() { w.hangs = false })
		began := time.Now()
		require.NoError(t, g2.Wait(t.Context(), id, ""))
		require.Less(t, time.Since(began), time.Second)
	})
}
