package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// incremental makes one incremental check, over ranges of ten.
func (r *rig) incremental() *outbox.CheckReport {
	r.t.Helper()
	report, err := r.op.CheckWith(r.t.Context(), outbox.CheckOptions{Incremental: true, Range: 10})
	require.NoError(r.t, err)
	return report
}

// remembering returns a rig with 25 ranges of a log that is at rest, and a tail of 5, after two incremental checks of it.
func remembering(t *testing.T) *rig {
	t.Helper()
	r := failing(t, "c", outbox.MaxAttempts(1))
	for key := range 5 {
		r.fill(fmt.Sprint("key-", key), 51)
	}
	r.drainAll()
	first := r.incremental()
	require.Empty(t, first.Problems)
	require.EqualValues(t, 255, first.Checked)
	require.EqualValues(t, 255, first.Deliveries)
	r.holds(`select count(*) = 25 from checked`)
	require.EqualValues(t, 5+3*10, r.incremental().Checked, "the tail, and a tenth of the 25 ranges")
	return r
}

// TestIncrementalCheckFindsOldDamage: not at once, but in one of so many checks, and from then on in each until it is mended.
func TestIncrementalCheckFindsOldDamage(t *testing.T) {
	t.Parallel()
	again := remembering(t).save()
	for pos := int64(5); pos < 250; pos += 60 {
		t.Run(fmt.Sprint("at position ", pos), func(t *testing.T) {
			r := again(t)
			r.exec(`with lost as (delete from processed_events p using events e where e.id = p.event_id and e.pos = $1 returning p.*)
				select * into lost from lost`, pos)
			report, err := r.op.Check(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{"nowhere"}, kinds(report), "a full check trusts nothing")
			found := 0
			for runs := 0; found == 0; runs++ {
				require.Less(t, runs, outbox.CheckWithin)
				found = len(r.incremental().Problems)
			}
			require.Len(t, r.incremental().Problems, 1)
			r.holds(`select count(*) = 24 from checked`)
			r.exec(`insert into processed_events select * from lost`)
			r.exec(`drop table lost`)
			require.Empty(t, r.incremental().Problems)
			r.holds(`select count(*) = 25 from checked`)
		})
	}
}

// TestIncrementalCheckLooksAtOnceAtWhatChanged: at what a consumer, a run or something unfinished has to do with, and at nothing else.
func TestIncrementalCheckLooksAtOnceAtWhatChanged(t *testing.T) {
	t.Parallel()
	again := remembering(t).save()
	for name, c := range map[string]struct {
		change  func(r *rig)
		checked int64
		kinds   []string
	}{
		"nothing": {func(*rig) {}, 5 + 30, nil},
		"a consumer that begins now": {func(r *rig) {
			r.exec(`insert into consumers (name, kind) values ('d', 'tx')`)
			r.exec(`insert into cursors (consumer, lane, pos) select 'd', lane, 255 from generate_series(0, 63) lane`)
			r.exec(`insert into consumer_subscriptions (consumer, pattern, from_pos) values ('d', '*', 255)`)
		}, 5 + 30, nil},
		"a consumer that begins before": {func(r *rig) {
			r.exec(`insert into consumers (name, kind) values ('d', 'tx')`)
			r.exec(`insert into cursors (consumer, lane, pos) select 'd', lane, 100 from generate_series(0, 63) lane`)
			r.exec(`insert into consumer_subscriptions (consumer, pattern, from_pos) values ('d', '*', 100)`)
		}, 5 + 150 + 10, nil},
		"a subscription widened": {func(r *rig) {
			r.exec(`update consumer_subscriptions set pattern = '*'`)
		}, 255, nil},
		"another dedupe": {func(r *rig) {
			r.exec(`update consumers set dedupe = 'x'`)
		}, 255, []string{"nowhere"}},
		"a dead letter": {func(r *rig) {
			r.exec(`insert into discarded_jobs (consumer, event_id, type, key, lane, pos, data, correlation_id, attempts, errors, error, state, skipped)
				select 'c', id, type, key, lane, pos, data, correlation_id, 1, '[]', '', 'dead', true from events where pos = 21`)
		}, 5 + 10 + 30, []string{"twice"}},
		"a waiting row": {func(r *rig) {
			r.exec(`insert into waiting (consumer, key, pos, event_id, lane) select 'c', key, pos, id, lane from events where pos = 30`)
		}, 5 + 10 + 30, []string{"stranded", "twice"}},
		"a backfill": {func(r *rig) {
			r.backfill("c", outbox.Backfill{From: outbox.Beginning})
			r.drainAll()
		}, 255, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := again(t)
			c.change(r)
			report := r.incremental()
			require.Equal(t, c.kinds, kinds(report), "%v", report.Problems)
			if len(report.Problems) < outbox.CheckMost {
				require.Equal(t, c.checked, report.Checked)
			}
		})
	}
}

// TestOnlyWhatIsAtRestIsRemembered: a range is, when nothing of it is ahead of a cursor, held, waiting or dead.
func TestOnlyWhatIsAtRestIsRemembered(t *testing.T) {
	t.Parallel()
	r := failing(t, "c", outbox.MaxAttempts(1))
	r.exec(`insert into broken values (3)`)
	r.append("k", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	r.append("j", 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
	r.relay()
	remembered := func(ranges ...int64) {
		t.Helper()
		require.Empty(t, r.incremental().Problems)
		got := one[[]int64](r, `select coalesce(array_agg(from_pos order by from_pos), '{}') from checked`)
		require.Equal(t, append([]int64{}, ranges...), append([]int64{}, got...))
	}
	remembered() // all is ahead
	r.drain("c", "j")
	remembered(10)
	r.drain("c", "k")
	remembered(10) // dead, and what waits behind it
	r.dismiss(r.letter(3).ID)
	remembered(10) // the hold is settled, and not lifted
	r.settle()
	remembered(0, 10)
	// Other ranges forget these.
	_, err := r.op.CheckWith(t.Context(), outbox.CheckOptions{Incremental: true, Range: 20})
	require.NoError(t, err)
	r.holds(`select count(*) = 1 and max(to_pos) = 20 from checked`)
	r.exec(`delete from checked`)
	r.agrees()
	r.holds(`select not exists (select from checked)`)
}

// TestCheckBesideABackfill: while a consumer runs again over a part of the log, what comes after that part is processed as before. What it
// subscribes to only after the run was none of the run's.
func TestCheckBesideABackfill(t *testing.T) {
	t.Parallel()
	fails := false
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if fails && e.Data.N == 1 {
			return errors.New("fails now")
		}
		return effect(ctx, tx, e)
	}, outbox.On("note.*"), outbox.MaxAttempts(2))
	r := newRig(t, reg)
	r.append("k", 0, 1, 2)
	r.exec(`select outbox_append('other.type', 'k', '{}')`)
	r.settle()
	r.exec(`update events set relayed_at = relayed_at - interval '2 hours'`)
	r.exec(`update consumer_subscriptions set from_pos = 2`) // what the run has of before that, it has, too
	r.append("k", 3, 4)
	r.settle()
	run := r.backfill("c", outbox.Backfill{From: outbox.Beginning, Until: time.Now().Add(-time.Hour)})
	require.EqualValues(t, 4, run.To)
	r.agrees() // all of it is ahead
	fails = true
	r.drainAll()
	r.agrees() // an event of it is held, another waits
	r.append("k", 5)
	r.relay()
	r.agrees()
	fails = false
	r.settle()
	r.agrees()
	r.exec(`insert into consumer_subscriptions (consumer, pattern, from_pos) select 'c', 'other.*', head from relay_state`)
	r.agrees()
	r.exec(`delete from processed_events where consumer = 'c@1' and event_id = (select id from events where pos = 1)`)
	report, err := r.op.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"nowhere"}, kinds(report))
}

// TestCheckBesideTraffic: events are produced, relayed, drained, held, delivered and buried, and no snapshot shows one of them in two
// places or in none.
func TestCheckBesideTraffic(t *testing.T) {
	t.Parallel()
	r := failing(t, "c", outbox.MaxAttempts(2))
	r.exec(`insert into broken select n from generate_series(0, 39, 7) n`)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 12 {
			r.fill(fmt.Sprint("key-", i%5), 40)
			r.drainAll()
			r.deliverAll()
			if i%3 == 2 {
				r.replayAll()
			}
		}
	}()
	for checks := 0; ; checks++ {
		r.agrees()
		require.Empty(t, r.incremental().Problems)
		select {
		case <-done:
			require.Positive(t, checks)
			return
		default:
		}
	}
}
