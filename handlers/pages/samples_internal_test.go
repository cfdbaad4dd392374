package pages

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// What is settled is what the cursors have passed, less what of it is still before the consumer.
func TestSamplesTellWhatWasSettled(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	relay := func(from, to int) {
		t.Helper()
		exec(`insert into events (pos, seq, id, type, key, lane, data, correlation_id, source, schema_version, occurred_at)
			select i, i, gen_random_uuid(), 'a.b', 'k', 7, '{}', 'c', '', 1, now() from generate_series($1::int, $2::int) i`, from, to)
		exec(`update relay_state set head = $1`, to)
	}
	exec(`insert into consumers (name, kind) values ('billing', 'tx')`)
	exec(`insert into consumer_subscriptions (consumer, pattern) values ('billing', '*')`)
	exec(`insert into cursors (consumer, lane, pos) values ('billing', 7, 0)`)
	relay(1, 5)

	s := newSamples(outbox.NewOperator(pool, nil, "", nil))
	take := func() (did int64, rate *float64) {
		t.Helper()
		require.NoError(t, s.take(t.Context()))
		last := s.kept[len(s.kept)-1].Consumers[0]
		if n := len(s.kept); n > 1 {
			did = settled(last.ConsumerStatus) - settled(s.kept[n-2].Consumers[0].ConsumerStatus)
		}
		return did, last.Rate
	}
	_, rate := take()
	require.Nil(t, rate, "nothing to compare with")

	relay(6, 10)
	did, rate := take()
	require.Zero(t, did, "what came is all ahead")
	require.NotNil(t, rate)
	require.Zero(t, *rate)

	exec(`update cursors set pos = 10, passed = 10`)
	exec(`insert into holds (consumer, event_id, key, lane, pos, reason) select 'billing', id, key, lane, pos, 'failed' from events where pos = 8`)
	exec(`insert into waiting (consumer, key, pos, event_id, lane) select 'billing', key, pos, id, lane from events where pos in (9, 10)`)
	did, rate = take()
	require.EqualValues(t, 7, did, "what is held or waits is not settled")
	require.Positive(t, *rate)

	exec(`update cursors set pos = 0, passed = 0`)
	_, rate = take()
	require.Zero(t, *rate, "a backfill takes it up anew")
	exec(`update cursors set pos = 10, passed = 10`)
	did, rate = take()
	require.EqualValues(t, 10, did)
	require.Positive(t, *rate)

	s.tried = time.Now()
	looked, err := s.look(t.Context(), time.Now().Add(-keepSamples))
	require.NoError(t, err)
	require.Len(t, looked, 5, "the newest is young enough, and none is taken")
	looked, err = s.look(t.Context(), looked[3].At)
	require.NoError(t, err)
	require.Len(t, looked, 1, "only what is newer")
	s.kept[0].At = time.Now().Add(-2 * keepSamples)
	require.NoError(t, s.take(t.Context()))
	require.Len(t, s.kept, 5, "the old ones go")

	exec(`alter table holds rename to gone`)
	s.tried = time.Time{}
	looked, err = s.look(t.Context(), time.Time{})
	require.NoError(t, err)
	require.Len(t, looked, 5, "what is known stays there while the database does not answer")
	_, err = newSamples(s.operator).look(t.Context(), time.Time{})
	require.Error(t, err)
}
