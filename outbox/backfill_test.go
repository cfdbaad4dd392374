package outbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// copying keeps what it is told in effects, wrong by a hundred while it has its bug, and tells of it.
func copying(t *testing.T, opts ...outbox.Option) (r *rig, repaired func()) {
	t.Helper()
	wrong := 100
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "copy", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if err := brokenNow(ctx, tx, e); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `delete from effects where consumer = 'copy' and event_id = $1`, e.ID); err != nil {
			return err
		}
		if _, err := outbox.Append(ctx, tx, outbox.Event{Type: "copy.made", Key: e.Key, Data: e.Data}); err != nil {
			return err
		}
		e.Data.N += wrong
		return effect(ctx, tx, e)
	}, append(opts, outbox.On("note.*"))...)
	outbox.Handle(reg, "other", effect, outbox.On("note.*", "copy.made"))
	r = newRig(t, reg)
	r.exec(`create table broken (n int)`)
	return r, func() { wrong = 0 }
}

func (r *rig) backfill(consumer string, b outbox.Backfill) *outbox.BackfillStatus {
	r.t.Helper()
	s, err := r.op.Backfill(r.t.Context(), consumer, b, anna)
	require.NoError(r.t, err)
	return s
}

func TestBackfillRunsAgain(t *testing.T) {
	t.Parallel()
	r, repaired := copying(t)
	r.append("a", 1, 2, 3)
	r.append("b", 4)
	r.settle()
	r.applied("copy", "a", 101, 102, 103)
	others := one[int](r, `select count(*) from effects where consumer = 'other'`)

	repaired()
	s := r.backfill("copy", outbox.Backfill{From: outbox.Beginning})
	require.EqualValues(t, 4, s.Events)
	require.EqualValues(t, 4, s.Ahead)
	require.Equal(t, "running", s.State)
	r.agrees()
	// What comes now of the key is behind its history.
	r.append("a", 5)
	r.relay()
	r.drainAll()
	r.applied("copy", "a", 1, 2, 3, 5)
	r.agrees()
	r.settle()
	r.applied("copy", "b", 4)
	require.NoError(t, r.Maintain(t.Context()))
	s, err := r.op.BackfillStatus(t.Context(), s.ID)
	require.NoError(t, err)
	require.Equal(t, "done", s.State)
	require.Zero(t, s.Ahead+s.Held+s.Waiting)
	require.NotNil(t, s.EndedAt)
	// No other consumer was told again: but for the new event and its copy all is as it was.
	r.holds(`select count(*) = $1 from effects where consumer = 'other'`, others+2)
	r.holds(`select count(*) = 4 from processed_events where consumer = 'copy@' || $1::bigint`, s.ID)
	r.agrees()
}

// An event that a producer wrote twice comes twice in a run as well, and happens once in it.
func TestBackfillMeetsAnEventTwice(t *testing.T) {
	t.Parallel()
	r, repaired := copying(t)
	r.append("a", 1, 2)
	r.exec(`insert into outbox (id, type, key, data, correlation_id) select id, type, key, data, correlation_id from outbox where (data->>'n')::int = 1`)
	r.append("a", 3)
	r.settle()
	r.applied("copy", "a", 101, 102, 103)
	repaired()
	r.backfill("copy", outbox.Backfill{From: outbox.Beginning})
	// The first has been done in an earlier batch of the run: what is asked then must be what the run has done, and not what was
	// done before.
	r.exec(`insert into processed_events (consumer, event_id) select 'copy@' || max(r.id), e.id from runs r, events e
		where e.type = 'note.taken' and (e.data->>'n')::int = 1 group by e.id`)
	r.settle()
	r.applied("copy", "a", 101, 2, 3)
	r.agrees()
}

func TestBackfillTellsOthersIfAsked(t *testing.T) {
	t.Parallel()
	r, _ := copying(t)
	r.append("a", 1)
	r.settle()
	r.backfill("copy", outbox.Backfill{From: outbox.Beginning, Appends: true})
	r.settle()
	r.holds(`select count(*) = 2 from events where type = 'copy.made'`)
	r.agrees()
}

func TestBackfillOfARange(t *testing.T) {
	t.Parallel()
	r, repaired := copying(t)
	for n := range 6 {
		r.append("a", n)
		r.settle()
	}
	// Each two minutes after the one before.
	r.exec(`update events set relayed_at = now() - interval '1 hour' + pos * interval '1 minute'`)
	at := func(n int) time.Time {
		return one[time.Time](r, `select relayed_at from events where type = 'note.taken' and (data->>'n')::int = $1`, n)
	}
	repaired()
	s := r.backfill("copy", outbox.Backfill{From: outbox.Since(at(2).Add(time.Minute)), Until: at(4).Add(-time.Minute)})
	require.EqualValues(t, 1, s.Events)
	r.settle()
	r.applied("copy", "a", 100, 101, 102, 104, 105, 3)
	r.append("a", 6)
	r.settle()
	r.applied("copy", "a", 100, 101, 102, 104, 105, 3, 6)
	r.agrees()
}

// A consumer that started late gets what came before it by a backfill.
func TestBackfillFromBeforeItsStart(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	before := newRigOn(t, pool, outbox.NewRegistry(), outbox.Config{})
	before.append("a", 1, 2)
	before.relay()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "late", effect, outbox.On("note.*"))
	r := newRigOn(t, pool, reg, outbox.Config{})
	r.append("a", 3)
	r.settle()
	r.applied("late", "a", 3)
	r.backfill("late", outbox.Backfill{From: outbox.Beginning})
	r.agrees()
	r.settle()
	r.applied("late", "a", 3, 1, 2, 3)
	r.agrees()
}

func TestBackfillThatFails(t *testing.T) {
	t.Parallel()
	r, _ := copying(t, outbox.MaxAttempts(2))
	r.append("a", 1, 2, 3)
	r.settle()
	r.exec(`insert into broken values (2)`)
	r.exec(`delete from effects`)
	s := r.backfill("copy", outbox.Backfill{From: outbox.Beginning})
	r.append("a", 4)
	r.settle()
	r.applied("copy", "a", 101)
	s, err := r.op.BackfillStatus(t.Context(), s.ID)
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Held)
	require.EqualValues(t, 1, s.Waiting)
	r.agrees()
	var conflict *outbox.ConflictError
	_, err = r.op.Backfill(t.Context(), "copy", outbox.Backfill{From: outbox.Beginning}, anna)
	require.ErrorAs(t, err, &conflict)
	require.ErrorContains(t, err, `"a"`)

	r.exec(`delete from broken`)
	_, err = r.op.Replay(t.Context(), r.letter(2).ID, nil, anna)
	require.NoError(t, err)
	r.settle()
	r.applied("copy", "a", 101, 102, 103, 104)
	r.agrees()
	// Another run over all, its letter among them.
	r.backfill("copy", outbox.Backfill{From: outbox.Beginning})
	r.settle()
	r.agrees()
}

// Dead letters that their keys went on without are run again, too; a run that is stopped before gives them back.
func TestBackfillOfSkippedLetters(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		r, _ := copying(t, outbox.OnDead(outbox.Skip), outbox.MaxAttempts(1))
		r.exec(`insert into broken values (2), (2)`)
		r.append("a", 1, 2, 3)
		r.settle()
		r.applied("copy", "a", 101, 103)
		require.Equal(t, "dead", r.letter(2).State)
		r.exec(`delete from broken`)
		s := r.backfill("copy", outbox.Backfill{From: outbox.Beginning})
		require.Equal(t, "replaying", r.letter(2).State)
		r.agrees()
		if stopped {
			_, err := r.op.StopBackfill(t.Context(), s.ID, anna)
			require.NoError(t, err)
			require.Equal(t, "dead", r.letter(2).State)
		}
		r.settle()
		r.agrees()
		if !stopped {
			r.applied("copy", "a", 101, 102, 103)
			require.Equal(t, "replayed", r.letter(2).State)
		}
	}
}

func TestBackfillStops(t *testing.T) {
	t.Parallel()
	r, repaired := copying(t)
	r.append("a", 1, 2)
	r.append("b", 3)
	r.settle()
	repaired()
	s := r.backfill("copy", outbox.Backfill{From: outbox.Beginning})
	r.drain("copy", "a")
	s, err := r.op.StopBackfill(t.Context(), s.ID, anna)
	require.NoError(t, err)
	require.Equal(t, "stopped", s.State)
	_, err = r.op.StopBackfill(t.Context(), s.ID, anna)
	var conflict *outbox.ConflictError
	require.ErrorAs(t, err, &conflict)
	r.append("b", 4)
	r.settle()
	r.applied("copy", "a", 1, 2)
	r.applied("copy", "b", 103, 4)
	r.agrees()
	all, err := r.op.Backfills(t.Context(), "copy")
	require.NoError(t, err)
	require.Len(t, all, 1)
}

// The wake-ups of a backfill are lost: the relay finds its lanes.
func TestBackfillWithoutItsJobs(t *testing.T) {
	t.Parallel()
	r, repaired := copying(t)
	r.append("a", 1)
	r.settle()
	repaired()
	r.backfill("copy", outbox.Backfill{From: outbox.Beginning})
	r.exec(`delete from river_job`)
	stop := r.startRelay()
	r.until(`select exists (select from river_job where queue = 'outbox_copy' and (args->>'lane')::int = $1)`, r.lane("a"))
	require.NoError(t, stop())
}

func TestBackfillRefuses(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "mail", func(context.Context, outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, nil //nolint:nilnil // no record
	}, outbox.On("note.*"))
	r := newRig(t, reg)
	all := outbox.Backfill{From: outbox.Beginning}
	var conflict *outbox.ConflictError
	_, err := r.op.Backfill(t.Context(), "mail", all, outbox.Action{Actor: "anna"})
	require.ErrorIs(t, err, outbox.ErrReasonRequired)
	_, err = r.op.Backfill(t.Context(), "nobody", all, anna)
	require.ErrorIs(t, err, outbox.ErrNotFound)
	_, err = r.op.Backfill(t.Context(), "mail", all, anna)
	require.ErrorAs(t, err, &conflict)
	forced := outbox.Action{Actor: "anna", Reason: "a test", Force: true}
	_, err = r.op.Backfill(t.Context(), "mail", all, forced)
	require.ErrorAs(t, err, &conflict)
	r.append("a", 1)
	r.settle()
	s, err := r.op.Backfill(t.Context(), "mail", all, forced)
	require.NoError(t, err)
	_, err = r.op.Backfill(t.Context(), "mail", all, forced)
	require.ErrorAs(t, err, &conflict)
	r.settle()
	r.holds(`select count(*) = 1 from processed_events where consumer = 'mail@' || $1::bigint`, s.ID)
	r.agrees()
	_, err = r.op.BackfillStatus(t.Context(), 99)
	require.True(t, errors.Is(err, outbox.ErrNotFound))
}
