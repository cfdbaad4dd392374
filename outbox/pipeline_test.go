package outbox_test

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// TestPoisonedPipelines: whatever is wrong with one event's statements, and however its handler sends them, it alone fails,
// with its own error, at its first attempt, and the others have their effect once and in order.
func TestPoisonedPipelines(t *testing.T) {
	t.Parallel()
	queue := func(sql string, args ...any) func(context.Context, pgx.Tx) error {
		return func(ctx context.Context, _ pgx.Tx) error {
			outbox.Batch(ctx).Queue(sql, args...)
			return nil
		}
	}
	for name, c := range map[string]struct {
		poison func(context.Context, pgx.Tx) error
		says   string
	}{
		"cannot be parsed":  {queue(`selec 1`), `%syntax error%`},
		"no such table":     {queue(`insert into nowhere values (1)`), `%nowhere%`},
		"cannot be encoded": {queue(`select $1::int`, struct{}{}), `%encode%`},
		"divides by zero":   {queue(`select 1 / $1::int`, 0), `%division by zero%`},
		"result refused": {func(ctx context.Context, _ pgx.Tx) error {
			outbox.Batch(ctx).Queue(`update effects set n = n where false`).Exec(func(tag pgconn.CommandTag) error {
				if tag.RowsAffected() == 0 {
					return errors.New("nothing was updated")
				}
				return nil
			})
			return nil
		}, `%nothing was updated%`},
		"queued, then failed": {func(ctx context.Context, _ pgx.Tx) error {
			outbox.Batch(ctx).Queue(`insert into effects (n) values (-1)`)
			return errors.New("after all")
		}, `%after all%`},
		"sent, then failed": {func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `insert into effects (n) values (-1)`); err != nil {
				return err
			}
			return errors.New("after all")
		}, `%after all%`},
		"queued, sent, queued": {func(ctx context.Context, tx pgx.Tx) error {
			b := outbox.Batch(ctx)
			b.Queue(`insert into effects (n) values (-1)`)
			if _, err := tx.Exec(ctx, `insert into effects (n) values (-2)`); err != nil {
				return err
			}
			b.Queue(`select 1/0`)
			return nil
		}, `%division by zero%`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := handled(t, func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
				if e.Data.N == 0 || e.Data.N == 150 || e.Data.N == 151 || e.Data.N == 299 {
					return c.poison(ctx, tx)
				}
				return nil
			}, outbox.Unordered())
			r.fill("k", 300)
			r.drain("c", "k")
			r.holds(`select array_agg(n order by i) = array(select n from generate_series(0, 299) n where n not in (0, 150, 151, 299)) from effects`)
			r.holds(`select count(*) = 4 and bool_and(attempts = 1 and error like $1) from discarded_jobs`, c.says)
			r.holds(`select count(*) = 296 from processed_events`)
			r.agrees()
		})
	}
}

// TestQueuedAndSentInOrder: the batch is the same before and after the handler sent something itself, and nothing of it is
// lost or sent twice.
func TestQueuedAndSentInOrder(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		b := outbox.Batch(ctx)
		insert := `insert into effects (consumer, key, event_id, n) values ($1, $2, $3, $4)`
		b.Queue(insert, e.Consumer, e.Key, e.ID, e.Data.N*10+1)
		if _, err := tx.Exec(ctx, insert, e.Consumer, e.Key, e.ID, e.Data.N*10+2); err != nil {
			return err
		}
		b.Queue(insert, e.Consumer, e.Key, e.ID, e.Data.N*10+3)
		var n int
		if err := tx.QueryRow(ctx, `select count(*) from effects where event_id = $1`, e.ID).Scan(&n); err != nil || n != 3 {
			return errors.Join(err, errors.New("what was queued is not there"))
		}
		b.Queue(insert, e.Consumer, e.Key, e.ID, e.Data.N*10+4)
		return nil
	}, outbox.On("note.*"), outbox.MaxAttempts(1))
	r := newRig(t, reg)
	r.fill("k", 250)
	r.drain("c", "k")
	r.holds(`select array_agg(n order by i) = array(select n * 10 + m from generate_series(0, 249) n, generate_series(1, 4) m order by 1) from effects`)
	r.agrees()
}

// TestDealtWithBefore: a cursor that was set back, as by a restore of that table alone, has no effect twice.
func TestDealtWithBefore(t *testing.T) {
	t.Parallel()
	fails := true
	r := handled(t, func(_ context.Context, _ pgx.Tx, e outbox.Received[note]) error {
		if fails && e.Data.N == 3 {
			return errors.New("once")
		}
		return nil
	}, outbox.Unordered())
	r.fill("k", 20)
	r.drain("c", "k")
	r.holds(`select count(*) = 19 from effects`)
	r.exec(`update cursors set pos = 0`)
	r.drain("c", "k")
	require.Equal(t, int64(19), one[int64](r, `select count(*) from effects`))
	r.holds(`select count(*) = 1 from holds`)
	r.holds(`select count(*) = 20 from delivery_log where outcome = 'duplicate'`)
	r.agrees()
}

// TestLaterFailureHoldsNoEarlierEvent: the third event fails before anything is sent, the first when its statement is. The second,
// of the third one's key, is run again with the first one's chunk, and comes before the third all the same.
func TestLaterFailureHoldsNoEarlierEvent(t *testing.T) {
	t.Parallel()
	r := handled(t, func(ctx context.Context, _ pgx.Tx, e outbox.Received[note]) error {
		switch e.Data.N {
		case 1:
			outbox.Batch(ctx).Queue(`select 1 / $1::integer`, 0)
		case 3:
			return errors.New("it fails at once")
		}
		return nil
	})
	other := one[string](r, `select 'o' || i from generate_series(1, 100000) i where hashtextextended('o' || i, 0) & 63 = hashtextextended('k', 0) & 63 limit 1`)
	r.append(other, 1)
	r.append("k", 2)
	r.append("k", 3)
	r.settle()
	r.holds(`select array_agg(n order by i) = '{2}' from effects`)
	r.holds(`select count(*) = 2 from holds`)
	r.holds(`select not exists (select from waiting)`)
	r.agrees()
}

// TestLaterStatementFails: of two events of a key the statement of the second fails, by which time the first has run as well. It is
// run again, and either stands, or fails this time and has the second wait.
func TestLaterStatementFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		again   error
		effects string
		waiting int
	}{
		"and the first stands":                     {nil, `{1}`, 0},
		"and the first fails when it is run again": {errors.New("not twice"), `{}`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs := map[int]int{}
			r := handled(t, func(ctx context.Context, _ pgx.Tx, e outbox.Received[note]) error {
				switch runs[e.Data.N]++; {
				case e.Data.N == 2:
					outbox.Batch(ctx).Queue(`select 1 / $1::integer`, 0)
				case runs[1] > 1:
					return c.again
				}
				return nil
			})
			r.append("k", 1)
			r.append("k", 2)
			r.relay()
			r.drain("c", "k")
			r.holds(`select coalesce(array_agg(n order by i), '{}') = $1 from effects`, c.effects)
			r.holds(`select array_agg(pos order by pos) = array(select pos from events where data->>'n' = $1) from holds`, strconv.Itoa(2-c.waiting))
			r.holds(`select count(*) = $1 from waiting`, c.waiting)
			r.agrees()
		})
	}
}
