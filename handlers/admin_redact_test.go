package handlers_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An operator takes a person's data out of a letter: no route tells it any more, and no table but the log has it.
func TestAdminRedacts(t *testing.T) {
	t.Parallel()
	const datum = "ada lovelace"
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	_, event := o.deadLetter(`{"user_id": "x"}`)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := o.pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	exec(`insert into cursors (consumer, lane, pos) select 'billing', n, 1 from generate_series(0, 63) n`)
	exec(`update delivery_log set error = 'no plan for ' || $1::text where error = 'broken'`, datum)
	exec(`update discarded_jobs set error = 'no plan for ' || $1::text, errors = jsonb_build_array(jsonb_build_object('attempt', 1, 'at', now(), 'error', $1::text))`, datum)
	exec(`insert into river_job (kind, queue, max_attempts, state, finalized_at, args, errors)
		values ('outbox_deliver', 'q', 1, 'discarded', now(), jsonb_build_object('consumer', 'billing', 'event_id', $1::uuid), array[jsonb_build_object('error', $2::text, 'trace', $2::text)])`, event, datum)
	status, got := o.ask("POST", "/admin/dlq/replay", `{"filter":{"error":"`+datum+`"},"reason":"for `+datum+`"}`)
	require.Equal(t, 202, status, got)
	status, got = o.ask("POST", "/admin/operations/1/stop", `{"reason":"not for `+datum+`"}`)
	require.Equal(t, 200, status, got)
	status, got = o.ask("POST", "/admin/dlq/1/replay", `{"data":{"user_id":"x","email":"`+datum+`"},"reason":"`+datum+` asked"}`)
	require.Equal(t, 202, status, got)

	const all = `{"pointers":["/email"],"errors":true,"reasons":true,"reason":"asked by mail"}`
	status, got = o.ask("POST", "/admin/dlq/1/redact", all)
	require.Equal(t, 409, status, got)
	require.Contains(t, got["detail"], "is replaying")
	exec(`update holds set settled_at = now(), outcome = 'applied'`)
	exec(`update discarded_jobs set state = 'replayed'`)

	for _, c := range []struct {
		path, body string
		status     int
		pointer    string
	}{
		{"/admin/dlq/1/redact", ``, 400, ""},
		{"/admin/dlq/1/redact", `{}`, 422, "/reason"},
		{"/admin/dlq/1/redact", `{"reason":"r"}`, 422, ""},
		{"/admin/dlq/1/redact", `{"pointers":"/email","reason":"r"}`, 422, "/pointers"},
		{"/admin/dlq/1/redact", `{"pointers":[7],"reason":"r"}`, 422, "/pointers"},
		{"/admin/dlq/1/redact", `{"pointers":["/email",null],"reason":"r"}`, 422, "/pointers/1"},
		{"/admin/dlq/1/redact", `{"pointers":["/phone","/email"],"reason":"r"}`, 422, "/pointers/0"},
		{"/admin/dlq/1/redact", `{"pointers":["/email","email"],"reason":"r"}`, 422, "/pointers/1"},
		{"/admin/dlq/1/redact", `{"errors":1,"reason":"r"}`, 422, "/errors"},
		{"/admin/dlq/1/redact", `{"errors":true,"reason":"` + strings.Repeat("x", 1001) + `"}`, 422, "/reason"},
		{"/admin/dlq/1/redact", `{"errors":true,"reason":"r","data":{}}`, 422, "/data"},
		{"/admin/dlq/2/redact", all, 404, ""},
		{"/admin/dlq/x/redact", all, 404, ""},
	} {
		status, document := o.ask("POST", c.path, c.body)
		require.Equal(t, c.status, status, "%s: %v", c.body, document)
		if c.status == 422 {
			require.Equal(t, c.pointer, document["errors"].([]any)[0].(map[string]any)["pointer"], "%s: %v", c.body, document)
		}
	}
	status, got = o.ask("POST", "/admin/dlq/1/redact", `{"pointers":["/phone"],"reason":"r"}`)
	require.Equal(t, 422, status)
	require.Contains(t, got["errors"].([]any)[0].(map[string]any)["detail"], "nothing is there")

	told := func() (all string) {
		for _, path := range []string{
			"/admin/dlq", "/admin/dlq/1", "/admin/dlq/groups?state=replayed", "/admin/trace/corr-9", "/admin/events/" + event.String(), "/admin/audit",
			"/admin/operations", "/admin/operations/1",
		} {
			status, got := o.ask("GET", path, "")
			require.Equal(t, 200, status, path)
			encoded, err := json.Marshal(got)
			require.NoError(t, err)
			all += path + " " + string(encoded) + "\n"
		}
		return all
	}
	for line := range strings.Lines(told()) {
		require.Contains(t, line, datum)
	}
	status, got = o.ask("POST", "/admin/dlq/1/redact", all)
	require.Equal(t, 200, status, got)
	require.EqualValues(t, 1, got["id"])
	for _, of := range []string{"values", "errors", "reasons"} {
		require.Positive(t, got[of], of)
	}
	require.NotContains(t, told(), datum)

	rows, err := o.pool.Query(t.Context(), `select c.oid::regclass::text from pg_class c where c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace and c.relname !~ '^events'`)
	require.NoError(t, err)
	var tables []string
	for rows.Next() {
		var table string
		require.NoError(t, rows.Scan(&table))
		tables = append(tables, table)
	}
	require.NoError(t, rows.Err())
	require.Greater(t, len(tables), 20)
	for _, table := range tables {
		var holds bool
		require.NoError(t, o.pool.QueryRow(t.Context(), `select exists (select from `+table+` t where strpos(t::text, $1) > 0)`, datum).Scan(&holds))
		require.False(t, holds, table)
	}
}
