package outbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// What came into the log is counted once for each consumer that subscribes to it, from the position where its subscription begins.
func TestInflowCountsWhatEachConsumerSubscribesTo(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	for _, sql := range []string{
		`insert into consumers (name, kind) values ('all', 'tx'), ('carts', 'tx'), ('late', 'tx'), ('none', 'tx')`,
		`insert into consumer_subscriptions (consumer, pattern, from_pos) values ('all', 'cart.*', 0), ('all', 'user.signed_up', 0), ('all', '*', 0),
			('carts', 'cart.*', 0), ('late', '*', 98)`,
		`insert into events (pos, seq, id, type, key, lane, data, correlation_id, source, schema_version, occurred_at)
			select i, i, gen_random_uuid(), case i % 2 when 0 then 'cart.created' else 'user.signed_up' end, 'k' || i, i % 64, '{}', 'c', '', 1, now() from generate_series(1, 100) i`,
		`update relay_state set head = 100`,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	o := outbox.NewOperator(pool, nil, "", nil)
	in, err := o.Inflow(t.Context(), 0, 100)
	require.NoError(t, err)
	require.Equal(t, &outbox.Inflow{Head: 100, Events: map[string]int64{"all": 100, "carts": 50, "late": 2}}, in)
	in, err = o.Inflow(t.Context(), 97, 100)
	require.NoError(t, err)
	require.Equal(t, &outbox.Inflow{Head: 100, Events: map[string]int64{"all": 3, "carts": 2, "late": 2}}, in)
	in, err = o.Inflow(t.Context(), 100, 100)
	require.NoError(t, err)
	require.Equal(t, &outbox.Inflow{Head: 100, Events: map[string]int64{}}, in)
	in, err = o.Inflow(t.Context(), 0, 99)
	require.NoError(t, err)
	require.Equal(t, &outbox.Inflow{Head: 100}, in, "more than was to be counted")
}
