package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// sets returns a rig with a set-based consumer that fails for the events that fail does, and tells the sizes of its sets.
func sets(t *testing.T, fail func(n int) error, opts ...outbox.Option) (*rig, *[]int) {
	t.Helper()
	sizes := &[]int{}
	reg := outbox.NewRegistry()
	outbox.HandleBatch(reg, "c", func(ctx context.Context, tx pgx.Tx, es []outbox.Received[note]) error {
		*sizes = append(*sizes, len(es))
		var keys, ids []string
		var ns []int
		for _, e := range es {
			keys, ids, ns = append(keys, e.Key), append(ids, e.ID.String()), append(ns, e.Data.N)
		}
		_, err := tx.Exec(ctx, `insert into effects (consumer, key, event_id, n) select 'c', k, i, n from unnest($1::text[], $2::uuid[], $3::int[]) as u (k, i, n)`, keys, ids, ns)
		if err != nil {
			return err
		}
		for _, e := range es {
			if err := fail(e.Data.N); err != nil {
				return err
			}
		}
		return nil
	}, append(opts, outbox.On("note.*"), outbox.MaxAttempts(2))...)
	return newRig(t, reg), sizes
}

func TestSetsOfEvents(t *testing.T) {
	t.Parallel()
	r, sizes := sets(t, func(int) error { return nil })
	r.fill("k", 1200)
	r.drain("c", "k")
	require.Equal(t, []int{1000, 200}, *sizes)
	r.holds(`select array_agg(n order by i) = array(select generate_series(0, 1199)) from effects`)
	r.holds(`select count(*) = 1200 from processed_events`)
	r.agrees()
}

// TestOneOfASetFails: it alone is held up, and what comes later of its key; the others of the set have their effect once.
func TestOneOfASetFails(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string]func() error{
		"error": func() error { return errors.New("poison") },
		"panic": func() error { panic("poison") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := map[int]bool{0: true, 137: true, 138: true, 399: true}
			r, sizes := sets(t, func(n int) error {
				if bad[n] {
					return poison()
				}
				return nil
			}, outbox.Unordered())
			r.fill("k", 400)
			r.drain("c", "k")
			r.holds(`select count(*) = 396 and count(distinct event_id) = 396 from effects`)
			r.holds(`select bool_and(n not in (0, 137, 138, 399)) from effects`)
			r.holds(`select count(*) = 4 and bool_and(reason = 'failed' and attempts = 1) from holds`)
			require.LessOrEqual(t, len(*sizes), 130, "a failing set is taken apart, and not all the rest with it")
			clear(bad)
			r.deliverAll() // each alone
			r.holds(`select count(*) = 400 and count(distinct event_id) = 400 from effects`)
			require.Equal(t, 1, slices.Min(*sizes))
			r.agrees()
		})
	}
}

// TestOrderInASet: the later events of the failed one's key wait for it.
func TestOrderInASet(t *testing.T) {
	t.Parallel()
	fails := true
	r, _ := sets(t, func(n int) error {
		if fails && n == 20 {
			return errors.New("poison")
		}
		return nil
	})
	r.fill("k", 40)
	r.drain("c", "k")
	r.holds(`select array_agg(n order by i) = array(select generate_series(0, 19)) from effects`)
	r.holds(`select count(*) = 19 from waiting`)
	fails = false
	r.settle()
	r.holds(`select array_agg(n order by i) = array(select generate_series(0, 39)) from effects`)
	r.agrees()
}

// TestAppendInASet: a set has no one cause; an event that follows from one of it says which.
func TestAppendInASet(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.HandleBatch(reg, "c", func(ctx context.Context, tx pgx.Tx, es []outbox.Received[note]) error {
		for _, e := range es {
			if _, err := outbox.Append(e.Context(ctx), tx, outbox.Event{Type: "copy.made", Key: e.Key, Data: e.Data}); err != nil {
				return err
			}
		}
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "copies.made", Key: "all", Data: len(es)})
		return err
	}, outbox.On("note.*"))
	r := newRig(t, reg)
	for n := range 3 {
		r.append(fmt.Sprint("key-", n), n)
	}
	r.relay()
	r.drainAll()
	r.relay()
	r.holds(`select count(*) = 3 and bool_and(c.correlation_id = n.correlation_id and c.key = n.key)
		from events c join events n on n.id = c.causation_id where c.type = 'copy.made'`)
	r.holds(`select count(*) > 0 and bool_and(causation_id is null) from events where type = 'copies.made'`)
	r.agrees()
}

// TestBatchIsCutAtTheSizeOfItsData: what is left out is the next one's.
func TestBatchIsCutAtTheSizeOfItsData(t *testing.T) {
	t.Parallel()
	r, sizes := sets(t, func(int) error { return nil })
	r.exec(`select outbox_append('note.taken', 'k', jsonb_build_object('n', n, 'pad', repeat('x', 1000000))) from generate_series(0, 19) n`)
	r.relay()
	r.drainAll()
	require.Equal(t, []int{8, 8, 4}, *sizes)
	r.holds(`select array_agg(n order by i) = array(select generate_series(0, 19)) from effects`)
	r.agrees()
}
