package outbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// event appends one and returns its id.
func (r *rig) event(key string, n int) uuid.UUID {
	r.t.Helper()
	r.append(key, n)
	return one[uuid.UUID](r, `select id from outbox order by seq desc limit 1`)
}

func notProcessed(t *testing.T, err error, id uuid.UUID, consumer, state string) {
	t.Helper()
	var not *outbox.NotProcessedError
	require.ErrorAs(t, err, &not)
	require.Equal(t, &outbox.NotProcessedError{EventID: id, Consumer: consumer, State: state}, not)
}

// TestWaitFollowsAnEvent from before it is there to its end at each of two consumers.
func TestWaitFollowsAnEvent(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "one", effect, outbox.On("note.*"))
	outbox.Handle(reg, "two", effect, outbox.On("note.taken"))
	outbox.Handle(reg, "other", effect, outbox.On("memo.*"))
	r := newRig(t, reg)
	r.append("k", 0)
	r.settle() // the log has a head
	w := watching(t, r.pool)

	id := uuid.Must(uuid.NewV7())
	first, both, all := w.start(t.Context(), id, "one"), w.start(t.Context(), id, "two", "one", "two"), w.start(t.Context(), id)
	w.untold(first)
	r.exec(`insert into outbox (id, type, key, data, correlation_id) values ($1, 'note.taken', 'k', '{"n": 1}', 'x')`, id)
	w.untold(all)
	r.relay()
	w.untold(first)
	r.drain("one", "k")
	require.NoError(t, told(t, first))
	r.holds(`select count(*) = 1 from effects where event_id = $1 and consumer = 'one'`, id)
	w.untold(both)
	w.untold(all)
	r.drain("two", "k")
	require.NoError(t, told(t, both))
	require.NoError(t, told(t, all))
	// What is over is told at once, also again, and with no consumer left to wait for.
	require.NoError(t, outbox.Wait(t.Context(), w.pool, id, "two"))
	nobodys := one[uuid.UUID](r, `select outbox_append('letter.sent', 'k', '{}')`)
	unheard := w.start(t.Context(), nobodys)
	w.untold(unheard)
	r.relay()
	require.NoError(t, told(t, unheard))
}

// TestWaitEndsWithAnEventThatIsNotProcessed, whatever the other consumers do.
func TestWaitEndsWithAnEventThatIsNotProcessed(t *testing.T) {
	t.Parallel()
	for state, opts := range map[string][]outbox.Option{
		"dead":      {outbox.MaxAttempts(2)},
		"skipped":   {outbox.MaxAttempts(2), outbox.OnDead(outbox.Skip)},
		"dismissed": {outbox.MaxAttempts(1)},
	} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			r := failing(t, "c", opts...)
			// One that never comes to it.
			other := outbox.NewRegistry()
			outbox.Handle(other, "a", effect, outbox.On("note.*"))
			newRigOn(t, r.pool, other, outbox.Config{})
			r.exec(`insert into broken values (1)`)
			w := watching(t, r.pool)
			id := r.event("k", 1)
			r.relay()
			waits := []<-chan error{w.start(t.Context(), id, "c"), w.start(t.Context(), id, "a", "c"), w.start(t.Context(), id)}
			r.drain("c", "k") // in flight, but for one attempt
			if state == "dismissed" {
				for _, wait := range waits {
					notProcessed(t, told(t, wait), id, "c", "dead")
				}
				r.dismiss(r.letter(1).ID)
				waits = []<-chan error{w.start(t.Context(), id, "c"), w.start(t.Context(), id)}
			} else {
				for _, wait := range waits {
					w.untold(wait)
				}
				r.deliverAll()
			}
			for _, wait := range waits {
				notProcessed(t, told(t, wait), id, "c", state)
			}
			still, cancel := context.WithCancel(t.Context())
			a := w.start(still, id, "a")
			w.untold(a)
			cancel()
			require.ErrorIs(t, told(t, a), context.Canceled)
		})
	}
}

// TestWaitOutlastsAReplay: while it is replayed, an event may be processed yet.
func TestWaitOutlastsAReplay(t *testing.T) {
	t.Parallel()
	r := failing(t, "c", outbox.MaxAttempts(1))
	r.exec(`insert into broken values (1)`)
	w := watching(t, r.pool)
	id := r.event("k", 1)
	r.settle()
	r.exec(`delete from broken`)
	_, err := r.op.Replay(t.Context(), r.letter(1).ID, nil, anna)
	require.NoError(t, err)
	wait := w.start(t.Context(), id, "c")
	w.untold(wait)
	r.settle()
	require.NoError(t, told(t, wait))
}

// TestWaitRefusesWhatWillNeverBe, once that is certain.
func TestWaitRefusesWhatWillNeverBe(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", effect, outbox.On("note.*"))
	outbox.Handle(reg, "memos", effect, outbox.On("memo.*"))
	r := newRig(t, reg)
	w := watching(t, r.pool)
	id := r.event("k", 1)
	wrong := map[string]<-chan error{}
	for _, name := range []string{"nobody", "memos"} {
		wrong[name] = w.start(t.Context(), id, "c", name)
		w.untold(wrong[name])
	}
	r.relay()
	for name, wait := range wrong {
		err := told(t, wait)
		require.ErrorIs(t, err, outbox.ErrNotFound)
		require.ErrorContains(t, err, "consumer "+name+" ")
	}
	on(t, r.pool, "late") // it begins after the event
	require.ErrorIs(t, told(t, w.start(t.Context(), id, "late")), outbox.ErrNotFound)
	for _, impossible := range []string{"", "No", "a b", "a\x00"} {
		require.ErrorIs(t, outbox.Wait(t.Context(), w.pool, uuid.New(), impossible), outbox.ErrNotFound)
	}
	r.drainAll()
	require.NoError(t, told(t, w.start(t.Context(), id)))
}

// TestWaitForARenamedConsumer, which has processed the event under its old name.
func TestWaitForARenamedConsumer(t *testing.T) {
	t.Parallel()
	old := on(t, testdb.Pool(t), "old")
	w := watching(t, old.pool)
	before := old.event("k", 1)
	old.settle()
	require.NoError(t, told(t, w.start(t.Context(), before, "old")))
	after := old.event("k", 2)
	wait := w.start(t.Context(), after, "new")
	w.untold(wait)
	r := on(t, old.pool, "new", outbox.Formerly("old"))
	require.NoError(t, told(t, w.start(t.Context(), before, "new")))
	require.ErrorIs(t, told(t, w.start(t.Context(), before, "old")), outbox.ErrNotFound)
	w.untold(wait)
	r.settle()
	require.NoError(t, told(t, wait))
}

// TestWaitAndBackfills: what was processed stays processed, and what a backfill processes first counts.
func TestWaitAndBackfills(t *testing.T) {
	t.Parallel()
	r := failing(t, "c", outbox.MaxAttempts(1), outbox.OnDead(outbox.Skip))
	r.exec(`insert into broken values (2)`)
	w := watching(t, r.pool)
	live := r.event("a", 1)
	r.settle()
	skipped := r.event("b", 2)
	r.settle()
	late := on(t, r.pool, "late")
	r.exec(`delete from broken`)
	r.backfill("c", outbox.Backfill{From: outbox.Beginning})
	late.backfill("late", outbox.Backfill{From: outbox.Beginning})
	require.NoError(t, told(t, w.start(t.Context(), live, "c")))
	waits := []<-chan error{w.start(t.Context(), skipped, "c"), w.start(t.Context(), live, "late"), w.start(t.Context(), skipped)}
	for _, wait := range waits {
		w.untold(wait)
	}
	for _, key := range []string{"a", "b"} {
		r.drain("c", key)
		late.drain("late", key)
	}
	for _, wait := range waits {
		require.NoError(t, told(t, wait))
	}
	r.backfill("c", outbox.Backfill{From: outbox.Beginning})
	require.NoError(t, told(t, w.start(t.Context(), skipped, "c")))
}

// TestWaitEndsWithItsContext, with an error that says so.
func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := watching(t, testdb.Pool(t))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	id := uuid.New()
	other := w.start(t.Context(), id, "c")
	require.ErrorIs(t, told(t, w.start(ctx, id, "c")), context.DeadlineExceeded)
	require.ErrorIs(t, outbox.Wait(ctx, w.pool, id), context.DeadlineExceeded)
	w.untold(other) // who waits for the same goes on
	w.pool.Close()
	err := told(t, other)
	require.Error(t, err)
	require.False(t, errors.Is(err, context.Canceled), err)
}

// TestWaitOutlastsAnOutage: connections that are lost are no answer.
func TestWaitOutlastsAnOutage(t *testing.T) {
	t.Parallel()
	r := on(t, testdb.Pool(t), "c")
	w := watching(t, r.pool)
	id := r.event("k", 1)
	wait := w.start(t.Context(), id, "c")
	w.looked()
	// Looks that are under way, one after the other.
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `lock table processed_events`)
	require.NoError(t, err)
	for range 3 {
		r.until(`select coalesce(bool_or(pg_terminate_backend(pid)), false) from pg_stat_activity
			where datname = current_database() and wait_event_type = 'Lock' and query like '%WaitStates%'`)
	}
	require.NoError(t, tx.Rollback(t.Context()))
	w.untold(wait)
	r.settle()
	require.NoError(t, told(t, wait))

	// An error that does not pass reaches who waits.
	r.exec(`alter table consumer_subscriptions rename to elsewhere`)
	require.Error(t, told(t, w.start(t.Context(), uuid.New(), "c")))
}

// TestWaitInASchemaOfItsOwn asks the tables there.
func TestWaitInASchemaOfItsOwn(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	err := outbox.Schema("elsewhere").Wait(t.Context(), pool, uuid.New(), "c")
	require.ErrorContains(t, err, "elsewhere")
}
