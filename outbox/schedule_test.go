package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

func (r *rig) appendEvent(e outbox.Event, more ...outbox.Event) (id uuid.UUID) {
	r.t.Helper()
	require.NoError(r.t, outbox.InTx(r.t.Context(), r.pool, func(tx pgx.Tx) (err error) {
		id, err = outbox.Append(r.t.Context(), tx, e, more...)
		return err
	}))
	return id
}

func at(key string, n int, notBefore time.Time) outbox.Event {
	return outbox.Event{Type: "note.taken", Key: key, Data: note{n}, NotBefore: notBefore}
}

func (r *rig) state(id uuid.UUID) string {
	r.t.Helper()
	view, err := r.op.Event(r.t.Context(), id)
	require.NoError(r.t, err)
	return view.State
}

func (r *rig) due() { r.t.Helper(); r.exec(`update scheduled set not_before = clock_timestamp()`) }

func TestScheduledEventComesWhenDue(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", effect, outbox.On("note.*"))
	r := newRig(t, reg)
	later := time.Now().Add(time.Hour)
	id := r.appendEvent(at("a", 1, later))
	r.append("a", 2)
	r.appendEvent(at("a", 3, time.Now().Add(-time.Hour))) // that is now
	r.exec(`select outbox_append('note.taken', 'b', '{"n": 4}', not_before => now() + interval '1 hour')`)
	r.settle()
	r.applied("c", "a", 2, 3)
	require.Equal(t, "scheduled", r.state(id))
	r.agrees()

	r.due()
	stop := r.startRelay()
	r.until(`select count(*) = 4 from events`)
	require.NoError(t, stop())
	r.settle()
	r.applied("c", "a", 2, 3, 1) // its order counts from when it was due
	r.applied("c", "b", 4)
	require.Equal(t, "relayed", r.state(id))
	r.holds(`select occurred_at > now() - interval '1 minute' from events where id = $1`, id)
	r.agrees()
}

func TestScheduledEventIsTakenBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	later := time.Now().Add(time.Hour)
	one, two := r.appendEvent(at("a", 1, later)), r.appendEvent(at("a", 2, later))
	cancel := func(tx pgx.Tx) []uuid.UUID {
		gone, err := outbox.CancelScheduled(t.Context(), tx, one, uuid.New())
		require.NoError(t, err)
		return gone
	}
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	require.Equal(t, []uuid.UUID{one}, cancel(tx))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, "scheduled", r.state(one))
	require.NoError(t, outbox.InTx(t.Context(), r.pool, func(tx pgx.Tx) error {
		require.Equal(t, []uuid.UUID{one}, cancel(tx))
		require.Empty(t, cancel(tx))
		return nil
	}))
	_, err = r.op.Event(t.Context(), one)
	require.ErrorIs(t, err, outbox.ErrNotFound)
	require.Equal(t, "scheduled", r.state(two))
}

// An event whose key a producer has in hand waits for it, so that numbers of a key are in the order of commits; others do not.
func TestScheduledEventWaitsForItsKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	later := time.Now().Add(time.Hour)
	r.appendEvent(at("a", 1, later))
	r.appendEvent(at("b", 2, later))
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = outbox.Append(t.Context(), tx, outbox.Event{Type: "note.taken", Key: "a", Data: note{3}})
	require.NoError(t, err)
	r.due()
	stop := r.startRelay()
	r.until(`select count(*) = 1 from events where key = 'b'`)
	r.holds(`select count(*) = 1 from scheduled where key = 'a'`)
	require.NoError(t, tx.Commit(t.Context()))
	r.until(`select count(*) = 3 from events`)
	require.NoError(t, stop())
	r.holds(`select array_agg((data->>'n')::int order by pos) = '{3,1}' from events where key = 'a'`)
}

func TestBlockingScheduledEventHoldsItsKey(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", effect, outbox.On("note.*"))
	outbox.Handle(reg, "any-order", effect, outbox.On("note.*"), outbox.Unordered())
	r := newRig(t, reg)
	e := at("a", 2, time.Now().Add(2*time.Hour))
	e.Blocks = true
	r.append("a", 1)
	r.appendEvent(e, outbox.Event{Type: "note.taken", Key: "b", Data: note{9}})
	r.append("a", 3)
	r.relay()
	r.drainAll()
	r.applied("c", "a", 1)
	r.applied("any-order", "a", 1, 3)
	r.applied("c", "b", 9)
	r.agrees()
	r.holds(`select count(*) = 2 from holds where reason = 'scheduled' and attempts = 0`)
	r.holds(`select bool_and(scheduled_at > now() + interval '110 minutes' and state = 'scheduled') from river_job where kind = 'outbox_deliver'`)

	r.exec(`update river_job set state = 'available', scheduled_at = now() where kind = 'outbox_deliver'`)
	r.deliverAll()
	r.drainAll()
	r.applied("c", "a", 1, 2, 3)
	r.applied("any-order", "a", 1, 3, 2)
	r.agrees()
}

// One that comes to its turn behind a failed one is not due either.
func TestBlockingScheduledEventBehindAHeldOne(t *testing.T) {
	t.Parallel()
	r := failing(t, "c")
	r.exec(`insert into broken values (1)`)
	e := at("a", 2, time.Now().Add(2*time.Hour))
	e.Blocks = true
	r.append("a", 1)
	r.appendEvent(e)
	r.append("a", 3)
	r.relay()
	r.drainAll()
	r.exec(`delete from broken`)
	r.deliverAll()
	r.drainAll()
	r.applied("c", "a", 1)
	r.holds(`select reason = 'scheduled' from holds`)
	r.agrees()
}

func TestHandlersSchedule(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if e.Data.N == 1 {
			_, err := outbox.Append(ctx, tx, at(e.Key, 2, time.Now().Add(time.Hour)))
			return err
		}
		return effect(ctx, tx, e)
	}, outbox.On("note.*"))
	r := newRig(t, reg)
	r.append("a", 1)
	r.settle()
	r.holds(`select count(*) = 1 from scheduled s join events e on s.causation_id = e.id and s.correlation_id = e.correlation_id`)
	r.due()
	stop := r.startRelay()
	r.until(`select count(*) = 2 from events`)
	require.NoError(t, stop())
	r.settle()
	r.applied("c", "a", 2)
}
