package outbox_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const laterEffect = `insert into effects (consumer, key, n) values ($1, $2, $3)`

// trips counts what a connection sends: each is a round trip.
type trips struct{ queries, batches int }

func (n *trips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	n.queries++
	return ctx
}
func (*trips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (n *trips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	n.batches++
	return ctx
}
func (*trips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (*trips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func laterNote(ctx context.Context, tx pgx.Tx, n int) error {
	_, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.taken", Key: "k", Data: note{n}})
	return err
}

func later(ctx context.Context, tx pgx.Tx, n int) error {
	_, err := outbox.Later(tx).Exec(ctx, laterEffect, "producer", "k", n)
	return err
}

func TestLaterTravelsWithWhatComesNext(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	config := r.pool.Config().ConnConfig
	sent := &trips{}
	config.Tracer = sent
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })

	count := func(ctx context.Context, tx pgx.Tx) (n int, err error) {
		err = tx.QueryRow(ctx, `select (select count(*) from effects) + (select count(*) from outbox) + $1::int`, 0).Scan(&n)
		return n, err
	}
	for name, c := range map[string]struct {
		work    func(ctx context.Context, tx pgx.Tx) error
		batches int
		rows    int
	}{
		"all with the commit": {func(ctx context.Context, tx pgx.Tx) error {
			err := errors.Join(later(ctx, tx, 1), laterNote(ctx, tx, 1))
			_, failed := outbox.Later(tx).Exec(ctx, `update outbox set source = 'first', data = jsonb_build_object('n', (select n from effects)) where $1`, true)
			return errors.Join(err, failed, later(ctx, tx, 2), laterNote(ctx, tx, 2))
		}, 1, 4},
		"some with a query": {func(ctx context.Context, tx pgx.Tx) error {
			err := errors.Join(later(ctx, tx, 1), laterNote(ctx, outbox.Later(tx), 1))
			n, failed := count(ctx, tx)
			if n != 2 {
				return errors.New("what was asked for before was not there")
			}
			return errors.Join(err, failed, later(ctx, tx, 2))
		}, 2, 3},
		"with an Exec": {func(ctx context.Context, tx pgx.Tx) error {
			err := later(ctx, tx, 1)
			tag, failed := tx.Exec(ctx, `update effects set n = 5 where n = $1`, 1)
			if tag.RowsAffected() != 1 {
				return errors.New("not in the order in which it was asked for")
			}
			return errors.Join(err, failed, laterNote(ctx, tx, 1))
		}, 2, 2},
	} {
		_, err := conn.Exec(t.Context(), `truncate effects, outbox`)
		require.NoError(t, err, name)
		*sent = trips{}
		require.NoError(t, outbox.InTx(t.Context(), conn, func(tx pgx.Tx) error { return c.work(t.Context(), tx) }), name)
		require.Equal(t, trips{batches: c.batches}, *sent, name)
		r.holds(`select count(*) < 2 or count(*) filter (where source = 'first' and data = '{"n":1}') = 1 from outbox`)
		require.Equal(t, c.rows, one[int](r, `select (select count(*) from effects) + (select count(*) from outbox)`), name)
	}
}

// Where a statement cannot wait it is run at once, and what waited before it comes before it.
func TestLaterIsNowWhereItHasToBe(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	ctx := t.Context()
	effects := func(tx pgx.Tx) (n int) {
		require.NoError(t, tx.QueryRow(ctx, `select count(*) from effects`).Scan(&n))
		return n
	}
	require.NoError(t, outbox.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		require.NoError(t, later(ctx, tx, 1))
		tag, err := outbox.Later(tx).Exec(ctx, `update effects set n = 2; update effects set n = n + 1`) // two, without arguments
		require.NoError(t, err)
		require.EqualValues(t, 1, tag.RowsAffected())

		inner, err := tx.Begin(ctx)
		require.NoError(t, err)
		require.NoError(t, later(ctx, inner, 4))
		require.NoError(t, later(ctx, tx, 4), "in the savepoint, too: it was asked for after that began")
		require.NoError(t, inner.Rollback(ctx))
		require.Equal(t, 1, effects(tx))
		return later(ctx, tx, 5)
	}))
	r.holds(`select array_agg(n order by n) = '{3,5}' from effects`)

	tx, err := r.pool.Begin(ctx)
	require.NoError(t, err)
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it ends with the test
	tag, err := outbox.Later(tx).Exec(ctx, laterEffect, "producer", "k", 6)
	require.NoError(t, err)
	require.EqualValues(t, 1, tag.RowsAffected(), "in a transaction of one's own it is an Exec")
}

func TestLaterFailsWithWhatComesNext(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	ctx := t.Context()
	r.exec(`alter table effects add constraint small check (n < 10)`)
	violated := func(err error, constraint string) {
		t.Helper()
		require.Equal(t, constraint == "no_x", strings.HasPrefix(err.Error(), "outbox: append: "), "it says what failed: %v", err)
		var pg *pgconn.PgError
		require.ErrorAs(t, err, &pg)
		require.Equal(t, constraint, pg.ConstraintName)
		require.False(t, outbox.IsOutcomeUnknown(err), "the server said what became of it")
	}
	violated(outbox.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		return errors.Join(laterNote(ctx, tx, 1), later(ctx, tx, 10))
	}), "small")
	violated(outbox.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		require.NoError(t, errors.Join(laterNote(ctx, tx, 1), later(ctx, tx, 10)))
		_, err := tx.Exec(ctx, laterEffect, "producer", "k", 1)
		return err
	}), "small")
	r.exec(`alter table outbox add constraint no_x check (key <> 'x')`)
	violated(outbox.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.taken", Key: "x", Data: note{}})
		return errors.Join(later(ctx, tx, 1), err, later(ctx, tx, 2))
	}), "no_x")
	// A deferred constraint fails in the commit itself: the transaction is rolled back all the same.
	r.exec(`alter table effects add constraint one unique (n) deferrable initially deferred`)
	violated(outbox.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		return errors.Join(later(ctx, tx, 1), laterNote(ctx, tx, 1), later(ctx, tx, 1))
	}), "one")
	r.holds(`select not exists (select from effects) and not exists (select from outbox)`)
	require.EqualValues(t, 0, r.pool.Stat().AcquiredConns())
}

// A connection that ends in the commit leaves its client without an answer, whatever the client had kept until then.
func TestOutcomeOfALostCommitIsUnknown(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	ctx := t.Context()
	r.exec(`create function leave() returns trigger language plpgsql as $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$`)
	r.exec(`create constraint trigger leaves after insert on effects deferrable initially deferred for each row execute function leave()`)
	for name, work := range map[string]func(tx pgx.Tx) error{
		"kept": func(tx pgx.Tx) error { return errors.Join(later(ctx, tx, 1), laterNote(ctx, tx, 1)) },
		"sent": func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, laterEffect, "producer", "k", 1)
			return err
		},
	} {
		err := outbox.InTx(ctx, r.pool, work)
		require.True(t, outbox.IsOutcomeUnknown(err), "%s: %v", name, err)
		require.False(t, pgconn.SafeToRetry(err), name)
	}
	err := outbox.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `select pg_terminate_backend(pg_backend_pid()), $1::int`, 1)
		return err
	})
	require.Error(t, err)
	require.False(t, outbox.IsOutcomeUnknown(err), "the commit was not reached")
}

func TestInTxOptions(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	ctx := t.Context()
	conn, err := r.pool.Acquire(ctx)
	require.NoError(t, err)
	defer conn.Release()
	for name, db := range map[string]outbox.TxBeginner{
		"pool": r.pool, "connection of the pool": conn, "connection": conn.Conn(), "other": struct{ *pgxpool.Pool }{r.pool},
	} {
		for _, level := range []pgx.TxIsoLevel{pgx.Serializable, pgx.ReadCommitted} {
			var got string
			require.NoError(t, outbox.InTxOptions(ctx, db, pgx.TxOptions{IsoLevel: level}, func(tx pgx.Tx) error {
				require.NoError(t, later(ctx, tx, 1))
				return tx.QueryRow(ctx, `select current_setting($1)`, "transaction_isolation").Scan(&got)
			}), name)
			require.Equal(t, string(level), got, name)
		}
	}
	r.holds(`select count(*) = 8 from effects`)
	require.NoError(t, outbox.InTxOptions(ctx, r.pool, pgx.TxOptions{CommitQuery: "rollback"}, func(tx pgx.Tx) error {
		return later(ctx, tx, 1)
	}))
	r.holds(`select count(*) = 8 from effects`)
}

// In a handler it goes on the batch: an error is that of the event that queued it, and an append through it is kept back
// as any is.
func TestLaterInAHandler(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	written := 0
	outbox.Handle(reg, "keeper", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if _, err := outbox.Append(ctx, outbox.Later(tx), outbox.Event{Type: "part.made", Key: "p", Data: e.Data}); err != nil {
			return err
		}
		before := outbox.Batch(ctx).Len()
		_, err := outbox.Later(tx).Exec(ctx, laterEffect, e.Consumer, e.Key, e.Data.N)
		written += outbox.Batch(ctx).Len() - before
		if err != nil || e.Data.N != 3 {
			return err
		}
		inner, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		// Inside of the savepoint, and gone with it.
		if err := later(ctx, tx, 5); err != nil {
			return err
		}
		return inner.Rollback(ctx)
	}, outbox.On("note.*"), outbox.MaxAttempts(1))
	r := newRig(t, reg)
	r.exec(`alter table effects add constraint small check (n < 10)`)
	r.append("a", 1, 2)
	r.append("b", 10)
	r.append("c", 3)
	r.relay()
	r.drainAll()
	require.GreaterOrEqual(t, written, 4, "an Exec of its own is a round trip")
	r.holds(`select array_agg(n order by n) = '{1,2,3}' from effects`)
	r.holds(`select array_agg(key) = '{b}' from holds`)
	r.holds(`select array_agg((data->>'n')::int order by 1) = '{1,2,3}' from (select data from outbox order by (data->>'n')::int) o`)
}
