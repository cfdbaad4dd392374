package outbox_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// TestSkipLetsTheKeyGoOn: the letter is there, and what came later did not wait for it.
func TestSkipLetsTheKeyGoOn(t *testing.T) {
	t.Parallel()
	for _, attempts := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d attempts", attempts), func(t *testing.T) {
			t.Parallel()
			r := failing(t, "ledger", outbox.MaxAttempts(attempts), outbox.OnDead(outbox.Skip))
			r.exec(`insert into broken values (1)`)
			r.append("k", 0, 1, 2, 3)
			r.settle()
			r.applied("ledger", "k", 0, 2, 3)
			r.holds(`select not exists (select from holds) and not exists (select from waiting)`)
			l := r.letter(1)
			require.True(t, l.Skipped)
			require.Equal(t, "dead", l.State)
			require.Equal(t, attempts, l.Attempts)
			r.agrees()

			view, err := r.op.Event(t.Context(), l.EventID)
			require.NoError(t, err)
			require.Equal(t, "skipped", view.Deliveries[0].State)
		})
	}
}

// TestReplayOfASkippedEvent is out of order, and so has to be forced, with a reason, once something newer was applied.
func TestReplayOfASkippedEvent(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(1), outbox.OnDead(outbox.Skip))
	r.exec(`insert into broken values (1)`)
	r.append("k", 0, 1)
	r.append("other", 7)
	r.settle()
	id := r.letter(1).ID

	// Nothing newer: no need of force. It fails again, and is skipped again.
	_, err := r.op.Replay(t.Context(), id, nil, outbox.Action{Actor: "anna"})
	require.NoError(t, err)
	r.append("k", 2)
	r.relay()
	r.drainAll()
	r.applied("ledger", "k", 0) // 2 waits for the replay
	r.agrees()
	r.settle()
	r.applied("ledger", "k", 0, 2)
	r.agrees()

	r.exec(`delete from broken`)
	var conflict *outbox.ConflictError
	_, err = r.op.Replay(t.Context(), id, nil, anna)
	require.ErrorAs(t, err, &conflict)
	require.Len(t, conflict.Newer, 1)
	require.Equal(t, one[uuid.UUID](r, `select id from events where (data->>'n')::int = 2`), conflict.Newer[0].EventID)
	require.EqualValues(t, 4, conflict.Newer[0].Position)
	_, err = r.op.Replay(t.Context(), id, nil, outbox.Action{Actor: "anna", Force: true})
	require.ErrorIs(t, err, outbox.ErrReasonRequired)
	r.holds(`select state = 'dead' and replays = 1 from discarded_jobs`)
	r.holds(`select not exists (select from holds)`)

	_, err = r.op.Replay(t.Context(), id, nil, outbox.Action{Actor: "anna", Reason: "the order does not matter here", Force: true})
	require.NoError(t, err)
	r.settle()
	r.applied("ledger", "k", 0, 2, 1)
	r.holds(`select state = 'replayed' from discarded_jobs`)
	r.holds(`select (detail->>'forced')::bool and detail->'newer'->0->>'event_id' = $1 from audit order by id desc limit 1`, conflict.Newer[0].EventID.String())
	r.agrees()
}

// TestSkippedEventBehindAHeldOne: two events of a key are never held at once.
func TestSkippedEventBehindAHeldOne(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(2), outbox.OnDead(outbox.Skip))
	r.exec(`insert into broken values (1), (2)`)
	r.append("k", 1)
	r.settle()
	id := r.letter(1).ID
	r.append("k", 2, 3)
	r.relay()
	r.drainAll()
	var conflict *outbox.ConflictError
	_, err := r.op.Replay(t.Context(), id, nil, outbox.Action{Actor: "anna", Reason: "now", Force: true})
	require.ErrorAs(t, err, &conflict)
	require.Empty(t, conflict.Newer)
	r.agrees()

	// Nor while a drain has the lane: it may be about to hold the key.
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select pg_advisory_xact_lock((tableoid::bigint - 2147483648)::integer, id * 64 + $1) from consumers`, r.lane("k"))
	require.NoError(t, err)
	r.exec(`delete from broken`)
	replayed := make(chan error, 1)
	go func() {
		_, err := r.op.Replay(t.Context(), id, nil, anna)
		replayed <- err
	}()
	r.blocked(1)
	require.NoError(t, tx.Rollback(t.Context()))
	require.ErrorAs(t, <-replayed, &conflict)
	r.settle()
	r.applied("ledger", "k", 2, 3)
	_, err = r.op.Replay(t.Context(), id, nil, outbox.Action{Actor: "anna", Reason: "now", Force: true})
	require.NoError(t, err)
	r.settle()
	r.applied("ledger", "k", 2, 3, 1)
	r.agrees()
}

// TestDismissOfASkippedEvent has nothing to release.
func TestDismissOfASkippedEvent(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(1), outbox.OnDead(outbox.Skip))
	r.exec(`insert into broken values (1)`)
	r.append("k", 1, 2)
	r.settle()
	_, err := r.op.Dismiss(t.Context(), r.letter(1).ID, outbox.Action{Actor: "anna"})
	require.ErrorIs(t, err, outbox.ErrReasonRequired)
	d := r.dismiss(r.letter(1).ID)
	require.Zero(t, d.ReleasedCount)
	require.Equal(t, "dismissed", d.State)
	require.Equal(t, "note.taken", d.Type)
	r.agrees()
	var conflict *outbox.ConflictError
	_, err = r.op.Replay(t.Context(), d.ID, nil, anna)
	require.ErrorAs(t, err, &conflict)
}

// TestSkippedJobRetriedInRiversTools does nothing: nobody holds its event.
func TestSkippedJobRetriedInRiversTools(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(2), outbox.OnDead(outbox.Skip))
	r.exec(`insert into broken values (1)`)
	r.append("k", 1, 2)
	r.settle()
	r.exec(`delete from broken`)
	job := one[int64](r, `update river_job set state = 'available', finalized_at = null, max_attempts = max_attempts + 1 where kind = 'outbox_deliver' returning id`)
	require.NoError(t, r.attempt(job))
	r.settle()
	r.applied("ledger", "k", 2)
	require.Equal(t, "dead", r.letter(1).State)
	r.agrees()
}

// TestConsumerThatBeginsToSkip: what it held stays held.
func TestConsumerThatBeginsToSkip(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(1))
	r.exec(`insert into broken values (1), (5)`)
	r.append("k", 1, 2)
	r.settle()
	skips := outbox.NewRegistry()
	outbox.Handle(skips, "ledger", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if err := brokenNow(ctx, tx, e); err != nil {
			return err
		}
		return effect(ctx, tx, e)
	}, outbox.On("note.*"), outbox.MaxAttempts(1), outbox.OnDead(outbox.Skip))
	r = newRigOn(t, r.pool, skips, outbox.Config{})
	r.append("k", 3)
	r.append("j", 5, 6)
	r.settle()
	r.applied("ledger", "k")
	r.applied("ledger", "j", 6)
	require.False(t, r.letter(1).Skipped)
	r.agrees()
	require.Equal(t, 2, r.dismiss(r.letter(1).ID).ReleasedCount)
	r.settle()
	r.applied("ledger", "k", 2, 3)
	r.agrees()
}
