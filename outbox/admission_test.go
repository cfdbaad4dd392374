package outbox_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// admissionRig is a rig with a consumer of notes, the fallible c, and an admission that refuses after ten minutes.
func admissionRig(t *testing.T) (*rig, *outbox.Admission, *logged) {
	t.Helper()
	r, _ := statsRig(t, func(reg *outbox.Registry) { outbox.Handle(reg, "c", fallible, outbox.On("note.*")) })
	r.exec(`update consumers set created_at = created_at - interval '2 hours'`)
	said := &logged{}
	a := r.admission(slog.New(slog.NewTextHandler(said, nil)))
	return r, a, said
}

func (r *rig) admission(log *slog.Logger) *outbox.Admission {
	r.t.Helper()
	a, err := outbox.NewAdmission(r.op, 10*time.Minute, log)
	require.NoError(r.t, err)
	return outbox.LooksAlways(a)
}

// sampled has a relay lead until it has kept what there is now, and leaves it leading.
func (r *rig) sampled() {
	r.t.Helper()
	stop := r.startRelay()
	r.t.Cleanup(func() { _ = stop() })
	r.resampled()
}

// resampled waits until a leading relay, which looks ten times a second, has looked at all again.
func (r *rig) resampled() {
	r.t.Helper()
	now := one[time.Time](r, `select clock_timestamp()`)
	r.until(`select ahead_at > $1::timestamptz + interval '300 milliseconds' from relay_stats`, now)
}

// An event that has been ahead of a cursor for too long closes the door, and its effect opens it.
func TestAdmissionRefusesWhileEventsWait(t *testing.T) {
	t.Parallel()
	r, a, said := admissionRig(t)
	require.Equal(t, outbox.Backlog{}, a.Backlog(t.Context()), "there is nothing")
	r.append("k", 1)
	r.relay()
	r.exec(`update events set relayed_at = relayed_at - interval '9 minutes'`)
	r.sampled()
	seen := a.Backlog(t.Context())
	require.False(t, seen.Refuses)
	require.Equal(t, "c", seen.Consumer)
	require.InDelta(t, 9*time.Minute, seen.Age, float64(30*time.Second))

	r.exec(`update relay_stats set ahead_since = ahead_since - interval '1 minute 1 second'`)
	r.append("k", 2) // and what comes later does not count
	r.until(`select not exists (select from outbox)`)
	r.drainAll()
	r.resampled()
	require.Equal(t, outbox.Backlog{}, a.Backlog(t.Context()), "all of it has its effect")
	require.NotContains(t, said.String(), "admission")
}

func TestAdmissionTellsWhenItRefuses(t *testing.T) {
	t.Parallel()
	r, a, said := admissionRig(t)
	r.append("k", 1)
	r.relay()
	r.exec(`update events set relayed_at = relayed_at - interval '11 minutes'`)
	r.sampled()
	require.True(t, a.Backlog(t.Context()).Refuses)
	require.True(t, a.Backlog(t.Context()).Refuses)
	r.drainAll()
	r.resampled()
	require.False(t, a.Backlog(t.Context()).Refuses)
	require.Regexp(t, `(?s)^[^\n]*new work is refused[^\n]* consumer=c\n[^\n]*new work is taken again[^\n]*\n$`, said.String(), "a line each")
}

// What somebody has set aside, or wants to be late, closes nothing.
func TestAdmissionDoesNotCount(t *testing.T) {
	t.Parallel()
	old := `update events set relayed_at = relayed_at - interval '1 hour', occurred_at = occurred_at - interval '1 hour'`
	for name, c := range map[string]struct {
		set   func(t *testing.T, r *rig) // and events are an hour old then
		after string                     // what makes it count; empty: nothing does
	}{
		"held, waiting and dead events": {set: func(_ *testing.T, r *rig) {
			r.exec(`insert into broken values (1), (1)`)
			r.append("k", 1, 2, 3)
			r.relay()
			r.drainAll()
			r.exec(old)
			r.deliverAll()
			r.holds(`select count(*) = 1 from discarded_jobs where state = 'dead'`)
			r.holds(`select count(*) = 2 from waiting`)
		}},
		"events that are not due": {set: func(_ *testing.T, r *rig) {
			r.appendEvent(outbox.Event{Type: "note.taken", Key: "k", Data: note{1}, NotBefore: time.Now().Add(time.Hour), Blocks: true})
			r.appendEvent(outbox.Event{Type: "note.taken", Key: "later", Data: note{1}, NotBefore: time.Now().Add(time.Hour)})
			r.relay()
			r.drainAll()
			r.exec(old)
			r.exec(`update scheduled set scheduled_at = scheduled_at - interval '1 hour'`)
		}},
		"a consumer that is paused": {set: func(t *testing.T, r *rig) {
			require.NoError(t, r.op.Pause(t.Context(), "c", anna))
			r.append("k", 1)
			r.relay()
			r.exec(old)
		}, after: `update consumers set paused_at = null`},
		"a consumer that was resumed": {set: func(t *testing.T, r *rig) {
			require.NoError(t, r.op.Pause(t.Context(), "c", anna))
			r.append("k", 1)
			r.relay()
			r.exec(old)
			require.NoError(t, r.op.Resume(t.Context(), "c", anna))
		}, after: `update consumers set resumed_at = resumed_at - interval '11 minutes'`},
		"the history that a new consumer begins with": {set: func(t *testing.T, r *rig) {
			r.append("k", 1)
			r.relay()
			r.drainAll()
			r.exec(old)
			reg := outbox.NewRegistry()
			outbox.Handle(reg, "new", effect, outbox.On("note.*"), outbox.StartFrom(outbox.Beginning))
			_, err := outbox.NewEngine(r.pool, reg, r.jobs, outbox.Config{}).Register(t.Context())
			require.NoError(t, err)
		}, after: `update consumers set created_at = created_at - interval '11 minutes'`},
		"a backfill": {set: func(t *testing.T, r *rig) {
			r.append("k", 1)
			r.relay()
			r.drainAll()
			r.exec(old)
			_, err := r.op.Backfill(t.Context(), "c", outbox.Backfill{From: outbox.Beginning}, anna)
			require.NoError(t, err)
			r.append("k", 2) // behind it
			r.relay()
			r.exec(old)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, a, _ := admissionRig(t)
			c.set(t, r)
			r.sampled()
			require.False(t, a.Backlog(t.Context()).Refuses)
			if c.after == "" {
				return
			}
			r.exec(c.after)
			r.resampled()
			require.True(t, a.Backlog(t.Context()).Refuses, "it would have been refused without")
		})
	}
}

// A relay that does not come along closes the door, too; a transaction that began long ago does not.
func TestAdmissionLooksAtTheOutbox(t *testing.T) {
	t.Parallel()
	r, a, _ := admissionRig(t)
	r.append("k", 1)
	r.exec(`update outbox set occurred_at = occurred_at - interval '1 hour'`)
	require.False(t, a.Backlog(t.Context()).Refuses, "it may have come this moment")
	seen := a.Backlog(t.Context())
	require.True(t, seen.Refuses, "it is still there")
	require.Empty(t, seen.Consumer)
	r.relay()
	require.False(t, a.Backlog(t.Context()).Refuses)
	r.append("k", 2)
	r.exec(`update outbox set occurred_at = occurred_at - interval '1 hour'`)
	require.False(t, a.Backlog(t.Context()).Refuses, "another one")
}

// What an older relay has left behind says nothing, nor does a database that does not answer.
func TestAdmissionThatCannotKnowLetsIn(t *testing.T) {
	t.Parallel()
	r, _, said := admissionRig(t)
	pool, err := pgxpool.NewWithConfig(t.Context(), r.pool.Config())
	require.NoError(t, err)
	a, err := outbox.NewAdmission(outbox.NewOperator(pool, r.jobs, "", nil), 10*time.Minute, slog.New(slog.NewTextHandler(said, nil)))
	require.NoError(t, err)
	outbox.LooksAlways(a)
	r.exec(`update relay_stats set ahead_since = now() - interval '1 hour', ahead_consumer = 'c', ahead_at = now() - interval '31 seconds', at = now()`)
	require.False(t, a.Backlog(t.Context()).Refuses)
	r.exec(`update relay_stats set ahead_at = now()`)
	require.True(t, a.Backlog(t.Context()).Refuses)
	pool.Close()
	require.False(t, a.Backlog(t.Context()).Refuses)
	require.Contains(t, said.String(), "the look at the backlog")
	_, err = outbox.NewAdmission(r.op, 0, nil)
	require.ErrorContains(t, err, "above 0")
}
