package outbox_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

func TestDeadLetterInAHotKey(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(2))
	r.exec(`insert into broken values (3)`)
	r.append("hot", 0, 1, 2, 3, 4, 5, 6)
	r.append("cold", 0, 1)
	r.settle()
	r.applied("ledger", "hot", 0, 1, 2)
	r.applied("ledger", "cold", 0, 1)
	r.holds(`select dead_at is not null and settled_at is null and attempts = 2 from holds`)
	r.holds(`select array_agg(pos - (select min(pos) from waiting) order by pos) = '{0,1,2}' from waiting`)
	r.agrees()

	// What comes now waits as well.
	r.append("hot", 7)
	r.settle()
	r.holds(`select count(*) = 4 from waiting`)
	r.agrees()

	r.exec(`delete from broken`)
	_, err := r.op.Replay(t.Context(), r.letter(3).ID, nil, anna)
	require.NoError(t, err)
	r.agrees()
	r.settle()
	r.applied("ledger", "hot", 0, 1, 2, 3, 4, 5, 6, 7)
	r.holds(`select not exists (select from holds) and not exists (select from waiting)`)
	r.holds(`select state = 'replayed' and replays = 1 from discarded_jobs`)
	r.agrees()
}

func TestReplayWithOtherData(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(1))
	r.exec(`insert into broken values (1)`)
	r.append("k", 1, 2)
	r.settle()
	id := r.letter(1).ID
	var invalid *outbox.InvalidEventError
	for _, data := range []string{`{"n": 1e200000}`, `{"n":`, `"\u0000"`, ``} {
		_, err := r.op.Replay(t.Context(), id, []byte(data), anna)
		require.ErrorAs(t, err, &invalid, data)
		require.Equal(t, "data", invalid.Field)
	}
	_, err := r.op.Replay(t.Context(), id, []byte(`{"n": 10}`), anna)
	require.NoError(t, err)
	r.settle()
	r.applied("ledger", "k", 10, 2)
	r.holds(`select data = '{"n": 1}' from events where pos = 1`)
	r.agrees()
}

func TestSuccessorThatFailsBecomesTheHoldsEvent(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(1))
	r.exec(`insert into broken values (1), (3)`)
	r.append("k", 0, 1, 2, 3, 4)
	r.settle()
	r.applied("ledger", "k", 0)
	first := r.letter(1)
	require.Equal(t, 3, r.dismiss(first.ID).ReleasedCount)
	r.agrees()
	r.settle()
	r.applied("ledger", "k", 0, 2)
	second := r.letter(3)
	require.Equal(t, "dead", second.State)
	require.Equal(t, 1, second.Attempts)
	require.NotEqual(t, first.EventID, second.EventID)
	r.holds(`select count(*) = 1 and bool_and(event_id = $1 and dead_at is not null) from holds`, second.EventID)
	r.holds(`select count(*) = 1 from waiting`)
	r.agrees()

	var conflict *outbox.ConflictError
	_, err := r.op.Dismiss(t.Context(), first.ID, anna)
	require.ErrorAs(t, err, &conflict)
	_, err = r.op.Replay(t.Context(), first.ID, nil, anna)
	require.ErrorAs(t, err, &conflict)

	r.exec(`delete from broken`)
	_, err = r.op.Replay(t.Context(), second.ID, nil, anna)
	require.NoError(t, err)
	r.settle()
	r.applied("ledger", "k", 0, 2, 3, 4)
	r.holds(`select not exists (select from holds) and not exists (select from waiting)`)
	r.agrees()
}

// TestSuccessorParkedAfterTheSettle: what is parked behind a hold that is settled already follows as well.
func TestSuccessorParkedAfterTheSettle(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(2))
	r.exec(`insert into broken values (0)`)
	r.append("k", 0, 1)
	r.relay()
	r.drainAll()
	r.exec(`delete from broken`)
	require.Equal(t, 1, r.deliverAll())
	r.holds(`select settled_at is not null from holds`)
	r.append("k", 2) // ahead of the cursor while the hold is settled and not lifted
	r.relay()
	r.agrees()
	r.drainAll()
	r.settle()
	r.applied("ledger", "k", 0, 1, 2)
	r.agrees()
}

func TestUnorderedConsumerPassesAndForgetsNothing(t *testing.T) {
	t.Parallel()
	r := failing(t, "search", outbox.MaxAttempts(2), outbox.Unordered())
	r.exec(`insert into broken values (0), (2)`)
	r.append("k", 0, 1, 2, 3)
	r.settle()
	r.applied("search", "k", 1, 3)
	r.holds(`select count(*) = 2 from holds where dead_at is not null`)
	r.agrees()
	r.exec(`delete from broken`)
	for _, n := range []int{0, 2} {
		_, err := r.op.Replay(t.Context(), r.letter(n).ID, nil, anna)
		require.NoError(t, err)
	}
	r.settle()
	r.applied("search", "k", 1, 3, 0, 2)
	r.holds(`select not exists (select from holds)`)
	r.agrees()
}

// TestConsumerThatBecomesUnordered: a deploy that gives the order up must not strand what waits for it.
func TestConsumerThatBecomesUnordered(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(1))
	r.exec(`insert into broken values (0)`)
	r.append("k", 0, 1, 2)
	r.settle()
	r.holds(`select count(*) = 2 from waiting`)

	reg := outbox.NewRegistry()
	outbox.Handle(reg, "ledger", effect, outbox.On("note.*"), outbox.Unordered())
	next := newRigOn(t, r.pool, reg, outbox.Config{})
	_, err := r.op.Replay(t.Context(), r.letter(0).ID, nil, anna)
	require.NoError(t, err)
	next.settle()
	next.applied("ledger", "k", 0, 1, 2)
	next.holds(`select not exists (select from holds) and not exists (select from waiting)`)
	next.agrees()
}

func TestExternalEventsOfAKeyGoOneByOne(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "mail", func(context.Context, outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, nil
	}, outbox.On("note.*"))
	r := newRig(t, reg)
	r.append("k", 0, 1, 2)
	r.append("j", 0)
	r.relay()
	r.drainAll()
	r.holds(`select count(*) = 2 and bool_and(reason = 'external' and attempts = 0) from holds`)
	r.holds(`select count(*) = 2 from waiting`)
	for n := range 3 {
		r.holds(`select pos = (select $1 + min(pos) from events where key = 'k') from holds where key = 'k'`, n)
		r.agrees()
		r.deliverAll()
		r.drainAll()
	}
	r.holds(`select not exists (select from holds) and not exists (select from waiting)`)
	r.holds(`select count(*) = 4 from processed_events`)
	r.agrees()
}
