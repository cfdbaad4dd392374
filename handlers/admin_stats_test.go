package handlers_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The statistics are those that the relay keeps; what it has not counted yet says so.
func TestAdminStats(t *testing.T) {
	t.Parallel()
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	o.deadLetter(`{"user_id": "secret-datum"}`)
	status, stats := o.ask("GET", "/admin/stats", "")
	require.Equal(t, 200, status, stats)
	require.Equal(t, false, stats["counted"])
	require.Equal(t, false, stats["leads"])
	require.Len(t, stats["consumers"], 1)
	require.Equal(t, false, stats["consumers"].([]any)[0].(map[string]any)["counted"])
	require.Equal(t, []any{}, stats["jobs"])

	for _, sql := range []string{
		`insert into outbox (id, type, key, data, correlation_id, source) values (gen_random_uuid(), 'user.signed_up', 'k', '{}', 'c', '')`,
		`insert into consumer_stats (consumer, head, ready, patterns, lag, dead, letters) values ('billing', 0, '{}', '{}', 7, 1, 1)`,
		`update consumers set paused_at = now()`,
	} {
		_, err := o.pool.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	status, stats = o.ask("GET", "/admin/stats", "")
	require.Equal(t, 200, status, stats)
	require.EqualValues(t, 1, stats["outbox"])
	of := stats["consumers"].([]any)[0].(map[string]any)
	require.Equal(t, []any{"billing", true, true, 7.0, 1.0, 1.0}, []any{of["name"], of["paused"], of["counted"], of["lag"], of["dead"], of["letters"]})
}
