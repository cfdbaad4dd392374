package outbox_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// laterEvents relays events one by one, each in a move of its own, as often as a floor needs to rise.
func (r *rig) laterEvents(before int) {
	r.t.Helper()
	for n := range 6 {
		r.append("later", before+n)
		r.until(`select count(*) = $1 from events where key = 'later'`, before+n+1)
	}
}

// TestLateCommitUnderTheFloor: a number that was drawn first and is committed last is below others that were moved long ago.
func TestLateCommitUnderTheFloor(t *testing.T) {
	t.Parallel()
	for name, insert := range map[string]string{
		// The transaction has an id of its own long before it ends.
		"open transaction": `select outbox_append('note.taken', 'late', '{"n": 1}')`,
		// A statement that has drawn its number and written nothing yet: without the table's trigger, it has no id.
		"between number and row": `insert into outbox (id, type, key, correlation_id, data)
			values (outbox_uuid7(), 'note.taken', 'late', 'c', case when pg_advisory_xact_lock(77) is null then '{}' else '{"n": 1}' end::jsonb)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := handled(t, func(context.Context, pgx.Tx, outbox.Received[note]) error { return nil })
			r.append("first", 0) // the first draw of a sequence is logged, and so gives the transaction an id
			blocker, err := r.pool.Begin(t.Context())
			require.NoError(t, err)
			_, err = blocker.Exec(t.Context(), `select pg_advisory_xact_lock(77)`)
			require.NoError(t, err)
			late, err := r.pool.Begin(t.Context())
			require.NoError(t, err)
			written := make(chan error, 1)
			go func() {
				_, err := late.Exec(t.Context(), insert)
				written <- err
			}()
			r.until(`select last_value >= 2 from outbox_seq_seq`)
			stop := r.startRelay()
			r.laterEvents(0)
			require.NoError(t, blocker.Commit(t.Context()))
			require.NoError(t, <-written)
			r.laterEvents(6)
			require.NoError(t, late.Commit(t.Context()))
			r.until(`select count(*) = 1 from events where key = 'late'`)
			require.NoError(t, stop())
			r.drainAll()
			r.agrees()
		})
	}
}

// TestRowThatGoesWhileItIsMoved: a batch that moved less than it could, because somebody deleted one of its rows at that moment, has not looked
// at what comes after it.
func TestRowThatGoesWhileItIsMoved(t *testing.T) {
	t.Parallel()
	const batch = 5000
	r := handled(t, func(context.Context, pgx.Tx, outbox.Received[note]) error { return nil })
	r.exec(`select outbox_append('note.taken', 'k' || i % 10, '{"n": 1}') from generate_series(1, $1::int) i`, 2*batch+2000)
	begin := func(sql string, args ...any) pgx.Tx {
		t.Helper()
		tx, err := r.pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
		return tx
	}
	first := begin(`select from outbox where seq = 10 for update`)
	stop := r.startRelay()
	r.blocked(1)
	// The relay's lock keeps the second batch from its beginning.
	between, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	locked := make(chan error, 1)
	go func() {
		_, err := between.Exec(t.Context(), `select pg_advisory_xact_lock((tableoid::bigint - 2147483648)::integer, 0) from relay_state`)
		locked <- err
	}()
	r.blocked(2)
	require.NoError(t, first.Rollback(t.Context()))
	require.NoError(t, <-locked)
	r.holds(`select count(*) = $1 from events`, batch)
	gone := begin(`delete from outbox where seq = $1`, batch+2000)
	require.NoError(t, between.Commit(t.Context()))
	r.until(`select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'transactionid')`)
	require.NoError(t, gone.Commit(t.Context()))
	r.append("k1", 2)
	r.until(`select count(*) = $1 from events`, 2*batch+2000)
	require.NoError(t, stop())
	r.holds(`select bool_and(ordered) from (select seq > lag(seq, 1, 0::bigint) over (partition by key order by pos) as ordered from events) o`)
}
