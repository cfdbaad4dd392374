package outbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

func TestPauseKeepsEventsInPlace(t *testing.T) {
	t.Parallel()
	r := failing(t, "c", outbox.MaxAttempts(5))
	r.exec(`insert into broken values (0)`)
	r.append("k", 0, 1)
	r.relay()
	r.drainAll()
	require.NoError(t, r.op.Pause(t.Context(), "c", anna))
	require.NoError(t, r.op.Pause(t.Context(), "c", anna))
	r.append("j", 7)
	r.relay()
	r.drain("c", "j")
	r.exec(`delete from broken`)
	job := one[int64](r, `select id from river_job where kind = 'outbox_deliver'`)
	var later *outbox.RetryLaterError
	require.ErrorAs(t, r.attempt(job), &later) // the queue may not have heard of the pause
	r.holds(`select not exists (select from effects)`)
	r.holds(`select attempts = 1 from holds`)
	r.holds(`select pos = 0 from cursors where lane = $1`, r.lane("j"))
	r.agrees()
	require.NoError(t, r.op.Resume(t.Context(), "c", anna))
	r.settle()
	r.applied("c", "k", 0, 1)
	r.applied("c", "j", 7)
	r.agrees()
}

// TestOldBuildPassesNothingBy: from the moment a newer build has subscribed to more, an older one takes none of the
// consumer's lanes and jobs, also if the registration was under way while it drained.
func TestOldBuildPassesNothingBy(t *testing.T) {
	t.Parallel()
	old := failing(t, "c", outbox.MaxAttempts(3)) // note.*
	old.exec(`insert into broken values (0)`)
	old.append("k", 0)
	old.relay()
	old.drainAll()

	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", effect, outbox.On("note.*", "order.paid", "zebra.seen"))
	// The registration of order.paid is done and that of zebra.seen waits, while events of both appear.
	tx, err := old.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `insert into consumer_subscriptions (consumer, pattern) values ('c', 'zebra.seen')`)
	require.NoError(t, err)
	newer := outbox.NewEngine(old.pool, reg, old.jobs, outbox.Config{RetryBase: time.Millisecond})
	registered := make(chan error, 1)
	go func() {
		_, err := newer.Register(t.Context())
		registered <- err
	}()
	old.blocked(1)
	old.exec(`select outbox_append('order.paid', 'j', '{"n": 1}')`)
	stop := old.startRelay()
	old.until(`select (select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock') > 1 or not exists (select from outbox)`)
	old.drain("c", "j")
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-registered)
	old.until(`select not exists (select from outbox)`)
	require.NoError(t, stop())

	_, err = old.Drain(t.Context(), outbox.Lane{Consumer: "c", Lane: old.lane("j")}, 0, time.Minute)
	require.True(t, outbox.IsUncovered(err), err)
	uncovered, err := old.Uncovered(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"c"}, uncovered)
	old.holds(`select not exists (select from effects)`)
	old.agrees()

	old.exec(`delete from broken`)
	next := &rig{Engine: newer, t: t, pool: old.pool, op: old.op, jobs: old.jobs}
	next.settle()
	next.applied("c", "j", 1)
	next.applied("c", "k", 0)
	next.agrees()

	// A consumer that a build knows nothing of.
	_, err = outbox.NewEngine(old.pool, outbox.NewRegistry(), old.jobs, outbox.Config{}).Drain(t.Context(), outbox.Lane{Consumer: "c"}, 0, 0)
	require.True(t, outbox.IsUncovered(err))
}

func TestNewConsumerStartsFromNow(t *testing.T) {
	t.Parallel()
	r := failing(t, "c")
	r.append("k", 1)
	r.relay()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", effect, outbox.On("note.*"))
	outbox.HandleExternal(reg, "late", func(context.Context, outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, errors.New("not now")
	}, outbox.On("*"), outbox.MaxAttempts(1))
	next := newRigOn(t, r.pool, reg, outbox.Config{})
	next.append("k", 2)
	next.settle()
	next.applied("c", "k", 1, 2)
	next.holds(`select count(*) = 1 and bool_and(consumer = 'late') from discarded_jobs`)
	next.agrees()
}
