package outbox_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

const day = 24 * time.Hour

// calendar lets days of the past go by: what happens on one is of that day in every table.
type calendar struct {
	*rig
	reg   *outbox.Registry
	keep  time.Duration
	today time.Time
	n     int
}

// passDay has each key get an event, and then what is too old retired.
func (c *calendar) passDay(keys ...string) {
	c.t.Helper()
	c.exec(`select outbox_make_processed_partitions(1, $1)`, c.today)
	c.exec(`insert into outbox (id, type, key, data, correlation_id, occurred_at)
		select encode(overlay(uuid_send(gen_random_uuid()) placing substring(int8send((extract(epoch from $1::timestamptz) * 1000)::bigint) from 3) from 1 for 6), 'hex')::uuid,
		       'note.taken', key, jsonb_build_object('n', $3::int + n), 'c', $1 from unnest($2::text[]) with ordinality k(key, n) order by n`, c.today, keys, c.n)
	c.n += len(keys)
	c.settle()
	c.exec(`update events set relayed_at = $1 where relayed_at > now() - interval '1 hour'`, c.today)
	c.exec(`update processed_events set processed_at = $1 where processed_at > now() - interval '1 hour'`, c.today)
	c.exec(`update delivery_log set at = $1 where at > now() - interval '1 hour'`, c.today)
	c.exec(`update discarded_jobs set changed_at = $1 where changed_at > now() - interval '1 hour'`, c.today)
	c.retire()
	c.today = c.today.Add(day)
}

func (c *calendar) retire() {
	c.t.Helper()
	engine := outbox.NewEngine(c.pool, c.reg, c.jobs, outbox.Config{Retention: time.Since(c.today) + c.keep})
	require.NoError(c.t, engine.Retain(c.t.Context()))
}

// begun is how many partitions of the log there are, but for those that are made ahead.
func (c *calendar) begun() int {
	c.t.Helper()
	return one[int](c.rig, `select count(*) from outbox_partitions('events') where lower_bound::bigint < (select head from relay_state)`)
}

// TestSixtyDays: partitions come and go, with a key held and an old letter in between; nothing that is needed goes, and what is
// there does not grow.
func TestSixtyDays(t *testing.T) {
	t.Parallel()
	var broken atomic.Int64
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", func(ctx context.Context, _ pgx.Tx, e outbox.Received[note]) error {
		if int64(e.Data.N) == broken.Load() {
			return errors.New("it is broken")
		}
		outbox.Batch(ctx).Queue(`insert into effects (consumer, key, n) values ('c', $1, $2)`, e.Key, e.Data.N)
		return nil
	}, outbox.On("note.*"), outbox.MaxAttempts(1))
	r := newRig(t, reg)
	c := &calendar{rig: r, reg: reg, keep: 7 * day, today: time.Now().Add(-75 * day)}
	r.exec(`drop table events_p0; update relay_state set partition_size = 1250, partitioned_to = 0`)
	r.exec(`select outbox_make_event_partitions(1)`)
	// Of few lanes: a drain each is what takes the test's time.
	keys := one[[]string](r, `select array_agg(k) from (select 'k' || i as k from generate_series(1, 100000) i
		where hashtextextended('k' || i, 0) & 63 < 3 limit 250) s`)
	held := keys[2]
	broken.Store(3)
	c.passDay(keys...) // the third event is a dead letter, and holds its key
	require.Equal(t, "dead", r.letter(3).State)
	for d := 1; d < 60; d++ {
		c.passDay(keys...)
		if d%10 == 0 {
			r.agrees()
			// A week and what is begun, and a small one with what waits since for each that is gone.
			require.LessOrEqual(t, c.begun(), 4+d/5)
		}
	}
	// It waits since the first day: each of its events is there, and of the old ones no other.
	r.holds(`select count(*) = 60 from events where key = $1`, held)
	r.holds(`select count(*) < 249*13 from events where key <> $1`, held)
	r.holds(`select count(*) = 59 from waiting`)
	r.holds(`select count(*) < 250*22 from processed_events`)
	r.holds(`select count(*) <= 3 from outbox_partitions('processed_events') where upper_bound::uuid < rpad(lpad(to_hex((extract(epoch from $1::timestamptz) * 1000)::bigint), 12, '0'), 32, '0')::uuid`, c.today)

	// The letter can be replayed, in order, and then all of it goes.
	broken.Store(0)
	_, err := r.op.Replay(t.Context(), r.letter(3).ID, nil, anna)
	require.NoError(t, err)
	r.settle()
	r.holds(`select count(*) = 60 from effects where key = $1`, held)
	r.holds(`select array_agg(n order by i) = array_agg(n order by n) from effects where key = $1`, held)
	r.agrees()
	for range 10 {
		c.passDay(keys...)
	}
	r.agrees()
	r.holds(`select count(*) < 250*13 from events`)
	r.holds(`select not exists (select from discarded_jobs)`)
	r.holds(`select not exists (select from delivery_log)`)
	require.LessOrEqual(t, c.begun(), 4)
}

// newCalendar has a log of small partitions, and what happened n days ago in it.
func newCalendar(t *testing.T, daysAgo int) *calendar {
	t.Helper()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", effect, outbox.On("note.*"))
	r := newRig(t, reg)
	r.exec(`drop table events_p0; update relay_state set partition_size = 1000, partitioned_to = 0`)
	r.exec(`select outbox_make_event_partitions(1)`)
	return &calendar{rig: r, reg: reg, keep: 7 * day, today: time.Now().Add(-time.Duration(daysAgo) * day)}
}

func (c *calendar) fill(days int) {
	c.t.Helper()
	keys := make([]string, 250)
	for i := range keys {
		keys[i] = "k" // one lane
	}
	for range days {
		c.passDay(keys...)
	}
}

func TestRetentionKeepsWhatIsAhead(t *testing.T) {
	t.Parallel()
	c := newCalendar(t, 50)
	c.fill(4)
	require.NoError(t, c.op.Pause(t.Context(), "c", anna))
	c.fill(30)
	c.holds(`select count(*) = 7500 + 1 from events`) // position 1000 is the first of its partition
	require.NoError(t, c.op.Resume(t.Context(), "c", anna))
	c.settle()
	c.holds(`select count(*) = 8500 from effects`)
	c.fill(1)
	c.holds(`select count(*) < 3000 from events`)
	c.agrees()

	// A new consumer begins with what is left, and says when it should have begun before.
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "late", effect, outbox.On("note.*"), outbox.StartFrom(outbox.Since(c.today.Add(-30*day))))
	_, err := outbox.NewEngine(c.pool, reg, c.jobs, outbox.Config{}).Register(t.Context())
	var conflict *outbox.ConflictError
	require.ErrorAs(t, err, &conflict)
	late := on(t, c.pool, "late", outbox.StartFrom(outbox.Beginning))
	late.settle()
	late.holds(`select count(*) = (select count(*) from events) from effects where consumer = 'late'`)
	_, err = c.op.Backfill(t.Context(), "c", outbox.Backfill{From: outbox.Since(c.today.Add(-30 * day))}, anna)
	require.ErrorAs(t, err, &conflict)
	// A backfill keeps what it is to run over.
	s := c.backfill("c", outbox.Backfill{From: outbox.Beginning})
	c.today = c.today.Add(9 * day)
	c.retire()
	c.holds(`select count(*) = $1 from events`, s.Events)
	c.settle()
	c.retire()
	c.holds(`select count(*) < $1 from events`, s.Events)
	c.agrees()
}

// Somebody reads a partition that is to go: it is left for the next time, and those who work are not kept waiting for long.
func TestRetentionWaitsForNobody(t *testing.T) {
	t.Parallel()
	c := newCalendar(t, 50)
	reader, err := c.pool.Begin(t.Context())
	require.NoError(t, err)
	c.fill(4)
	_, err = reader.Exec(t.Context(), `select from events`)
	require.NoError(t, err)
	c.today = c.today.Add(9 * day)
	c.retire()
	c.holds(`select count(*) = 1000 from events`)
	c.holds(`select floor = 999 from retention`)
	c.agrees()
	require.NoError(t, reader.Rollback(t.Context()))
	c.retire()
	c.holds(`select count(*) = 1 from events`) // the first of the next partition
	c.agrees()
}

// The floor is raised only when nobody is about to begin below it.
func TestFloorWaitsForWhoBeginsBelowIt(t *testing.T) {
	t.Parallel()
	c := newCalendar(t, 50)
	c.fill(4)
	c.today = c.today.Add(9 * day)
	tx, err := c.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select from retention for share`)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `update cursors set pos = 10`)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.retire()
	}()
	c.blocked(1)
	require.NoError(t, tx.Commit(t.Context()))
	<-done
	c.holds(`select floor = 0 from retention`)
}

// Retention comes every few minutes, and nearly always for nothing. It asks how far the cursors are, and looks through the delivery
// log, only where something is old enough.
func TestRetentionOfNothingOldLooksAtLittle(t *testing.T) {
	t.Parallel()
	c := newCalendar(t, 6)
	c.fill(5)
	c.exec(`insert into delivery_log (consumer, event_id, attempt, outcome, at) select 'c', id, 2, 'applied', relayed_at from events`)
	tx, err := c.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `lock table cursors in access exclusive mode`)
	require.NoError(t, err)
	c.retire()
	require.NoError(t, tx.Rollback(t.Context()))
	c.holds(`select floor = 0 from retention`)

	look := func(age time.Duration) int64 {
		row, err := outboxdb.New().RetireDeliveryLog(t.Context(), c.pool, outboxdb.RetireDeliveryLogParams{Seconds: age.Seconds(), Most: 100})
		require.NoError(t, err)
		return row.Looked
	}
	require.Equal(t, int64(0), look(7*day))
	require.Equal(t, int64(100), look(4*day))
	c.agrees()
}
