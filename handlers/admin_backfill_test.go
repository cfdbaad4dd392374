package handlers_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A run over the past is begun, shown and stopped; a subscription is ended; what has ended does not end again.
func TestAdminRunsAConsumerAgain(t *testing.T) {
	t.Parallel()
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	o.clear()
	for _, sql := range []string{
		`insert into events (pos, seq, id, type, key, lane, data, correlation_id, source, schema_version, occurred_at)
		 select 1, 1, gen_random_uuid(), 'user.signed_up', 'k', hashtextextended('k', 0) & 63, '{}', 'corr-9', '', 1, now()`,
		`insert into consumer_subscriptions (consumer, pattern) values ('billing', 'cart.*')`,
	} {
		_, err := o.pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	const begin, why = `{"from":"beginning","until":"","appends":false,"reason":"the trial's length was wrong"}`, `{"reason":"not today"}`
	status, run := o.ask("POST", "/admin/consumers/billing/backfill", begin)
	require.Equal(t, 202, status, run)
	require.Equal(t, [3]any{"billing", "running", 1.0}, [3]any{run["consumer"], run["state"], run["events"]})
	status, again := o.ask("POST", "/admin/consumers/billing/backfill", begin)
	require.Equal(t, 409, status, again)
	status, list := o.ask("GET", "/admin/consumers/billing/backfills", "")
	require.Equal(t, 200, status)
	require.Len(t, list["items"], 1)
	status, same := o.ask("GET", "/admin/backfills/1", "")
	require.Equal(t, 200, status)
	require.Equal(t, run, same)
	status, stopped := o.ask("POST", "/admin/backfills/1/stop", why)
	require.Equal(t, 200, status, stopped)
	require.Equal(t, "stopped", stopped["state"])
	status, again = o.ask("POST", "/admin/backfills/1/stop", why)
	require.Equal(t, 409, status, again)

	status, ended := o.ask("POST", "/admin/consumers/billing/unsubscribe", `{"pattern":"cart.*","reason":"no carts"}`)
	require.Equal(t, 200, status, ended)
	require.Equal(t, map[string]any{"name": "billing", "unsubscribed": "cart.*"}, ended)
	status, last := o.ask("POST", "/admin/consumers/billing/unsubscribe", `{"pattern":"user.*"}`)
	require.Equal(t, 409, status, last)
}

// A letter that is dismissed is not dismissed again.
func TestAdminDismissesOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	o.deadLetter(`{}`)
	for _, want := range []int{200, 409} {
		status, document := o.ask("POST", "/admin/dlq/1/dismiss", `{"reason":"a test"}`)
		require.Equal(t, want, status, document)
	}
}
