package outbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// What an event costs does not depend on how many came before it: no statement of the engine walks over what is done.
// The planner knows nothing of the tables here, as after a restore or a bulk load.
func TestHistoryIsNotReadAgain(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "notes", effect, outbox.On("note.*"))
	r := newRig(t, reg)
	const events = 10_000
	before := r.rowsRead()
	r.exec(`select outbox_append('note.taken', 'k', jsonb_build_object('n', n)) from generate_series(1, $1::int) n`, events)
	r.relay()
	r.drain("notes", "k") // in many batches of one lane
	r.append("k", 0)
	r.relay()
	r.drain("notes", "k")
	r.holds(`select count(*) = $1 from effects`, events+1)
	// A few readings each: what asks for the next one, and what reads it.
	require.Less(t, r.rowsRead()-before, int64(4*events))
}

// rowsRead is how many rows and index entries of the log were read until now.
func (r *rig) rowsRead() int64 {
	r.t.Helper()
	// A server process reports what it read at its end at the latest.
	r.pool.Reset()
	r.until(`select count(*) = 0 from pg_stat_activity where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`)
	return one[int64](r, `select (select sum(seq_tup_read) from pg_stat_user_tables where relname ~ '^events')
	                           + (select sum(idx_tup_read) from pg_stat_user_indexes where relname ~ '^events')`)
}
