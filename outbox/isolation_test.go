package outbox_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// TestEngineSaysItsIsolationAndBoundsItself, and leaves nothing of them on the connections.
func TestEngineSaysItsIsolationAndBoundsItself(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"serializable", "repeatable read"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			url := testdb.New(t)
			setup, err := pgx.Connect(t.Context(), url)
			require.NoError(t, err)
			_, err = setup.Exec(t.Context(), fmt.Sprintf(`do $$ begin execute format('alter database %%I set default_transaction_isolation = %%L', current_database(), '%s'); end $$`, isolation))
			require.NoError(t, err)
			require.NoError(t, setup.Close(t.Context()))

			const settings = `select concat_ws(',', current_setting('transaction_isolation'), current_setting('lock_timeout'),
				current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'),
				current_setting('plan_cache_mode'), current_setting('enable_seqscan'), current_setting('max_parallel_workers_per_gather'))`
			seen := map[string]string{}
			reg := outbox.NewRegistry()
			note1 := func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
				var s string
				if err := tx.QueryRow(ctx, settings).Scan(&s); err != nil {
					return err
				}
				seen[fmt.Sprint(e.Consumer, e.Attempt)] = s
				if e.Attempt == 1 && e.Consumer == "tx" {
					return fmt.Errorf("once")
				}
				return effect(ctx, tx, e)
			}
			outbox.Handle(reg, "tx", note1, outbox.On("note.*"))
			outbox.HandleExternal(reg, "external", func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
				return func(ctx context.Context, tx pgx.Tx) error { return note1(ctx, tx, e) }, nil
			}, outbox.On("note.*"))
			pool, err := pgxpool.New(t.Context(), url) // with no bounds of its own
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			r := newRigOn(t, pool, reg, outbox.Config{})
			r.holds(`select current_setting('transaction_isolation') = $1`, isolation)
			r.append("k", 1)
			r.settle()
			const plans = ",auto,on,2" // the session's own, whatever the engine's are
			require.Equal(t, map[string]string{
				"tx1":       "read committed,5s,30s,10s" + plans,
				"tx2":       "read committed,5s,20s,20s" + plans,
				"external1": "read committed,5s,20s,20s" + plans,
			}, seen)
			r.agrees()

			for _, conn := range pool.AcquireAllIdle(t.Context()) {
				var s string
				err := conn.QueryRow(t.Context(), settings).Scan(&s)
				conn.Release()
				require.NoError(t, err)
				require.Equal(t, isolation+",0,0,0"+plans, s)
			}
			r.holds(`select count(*) = 0 from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`)
		})
	}
}

// TestEngineLocksFirst reads what each kind of transaction of the engine sends: its bounds, then its lock, alone, and
// only then anything that reads what others write.
func TestEngineLocksFirst(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(testdb.New(t))
	require.NoError(t, err)
	trace := &statements{}
	config.ConnConfig.Tracer = trace
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", effect, outbox.On("note.*"))
	r := newRigOn(t, pool, reg, outbox.Config{})
	r.append("k", 1)
	r.relay()
	r.drainAll()
	require.NoError(t, r.Maintain(t.Context()))

	first := trace.afterBegin()
	for name, n := range map[string]int{"RelayLock": 2, "DrainTurn": 1, "MaintainLock": 3, "ConsumerRegisterLock": 1} {
		require.GreaterOrEqual(t, first[name], n, "%v", first)
		delete(first, name)
	}
	delete(first, "ScheduledDue")   // it takes the locks of what it finds; what of that is left is then looked up anew
	delete(first, "LanesQueued")    // before wake-ups are inserted, which need no lock
	delete(first, "StatsConsumers") // what is kept for metrics is written by the relay that leads, and by its token
	require.Empty(t, first, "transactions that begin with something else")
}
