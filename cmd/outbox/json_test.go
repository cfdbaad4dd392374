package main_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
	"github.com/pgoutbox/pgoutbox/workers"
)

// planted is a database with dead letters, an operation, a backfill and an audit, and the operators' routes on it.
func planted(t *testing.T) (pool *pgxpool.Pool, ask func(method, path, body string) string) {
	t.Helper()
	pool = testdb.Pool(t)
	plantLetters(t, pool, 4)
	for _, sql := range []string{
		`update relay_state set head = 4`,
		`insert into consumer_subscriptions (consumer, pattern) values ('billing', 'user.signed_up'), ('billing', 'cart.*')`,
		`insert into runs (consumer, from_pos, to_pos, events, appends, actor, reason) values ('billing', 0, 4, 4, false, 'anna', 'a test')`,
		`insert into consumers (name, kind) values ('webhook-crm', 'external')`,
		`insert into consumer_subscriptions (consumer, pattern) values ('webhook-crm', 'user.*')`,
		`insert into webhooks (consumer, url, secret) values ('webhook-crm', 'http://127.0.0.1:1/hooks?token=canary', 'whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5')`,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	jobs, err := workers.NewJobs(pool, "")
	require.NoError(t, err)
	operator := outbox.NewOperator(pool, jobs, "", nil)
	by := outbox.Action{Actor: "anna", Reason: "a test"}
	_, err = operator.ReplayAll(t.Context(), outbox.BulkReplay{Filter: outbox.LetterFilter{Key: "k4"}}, by)
	require.NoError(t, err)
	require.NoError(t, operator.Pause(t.Context(), "billing", by))
	admin := handlers.NewAdmin(handlers.AdminConfig{
		Config: handlers.Config{Pool: pool, Logger: slog.New(slog.DiscardHandler)}, Operator: operator, Tokens: map[string]string{"a token": "anna"},
		Webhooks: webhooks.New(pool, operator, "", webhooks.Options{}),
	})
	return pool, func(method, path, body string) string {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer a token")
		req.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		admin.ServeHTTP(answer, req)
		require.Equal(t, http.StatusOK, answer.Code, answer.Body.String())
		return answer.Body.String()
	}
}

// With --json a command prints the very document that its route answers.
func TestJSONIsTheRoutesDocument(t *testing.T) {
	t.Parallel()
	pool, ask := planted(t)
	url := pool.Config().ConnString()
	var event string
	require.NoError(t, pool.QueryRow(t.Context(), `select id::text from events where pos = 2`).Scan(&event))
	for _, c := range []struct{ command, method, path, body string }{
		{"dlq ls --state=any --limit=2", "GET", "/admin/dlq?limit=2", ""},
		{"dlq ls --state=any --limit=2 --cursor=3", "GET", "/admin/dlq?limit=2&cursor=3", ""},
		{"dlq groups", "GET", "/admin/dlq/groups", ""},
		{"dlq groups --cursor=9.9", "GET", "/admin/dlq/groups?cursor=9.9", ""},
		{"dlq show 2", "GET", "/admin/dlq/2", ""},
		{"events " + event, "GET", "/admin/events/" + event, ""},
		{"trace corr-2", "GET", "/admin/trace/corr-2", ""},
		{"search k3", "POST", "/admin/search", `{"query":"k3"}`},
		{"operations ls --limit=1", "GET", "/admin/operations?limit=1", ""},
		{"operations show 1", "GET", "/admin/operations/1", ""},
		{"audit --limit=1", "GET", "/admin/audit?limit=1", ""},
		{"consumers", "GET", "/admin/consumers", ""},
		{"consumers backfills billing", "GET", "/admin/consumers/billing/backfills", ""},
		{"backfills ls billing", "GET", "/admin/consumers/billing/backfills", ""},
		{"backfills show 1", "GET", "/admin/backfills/1", ""},
		{"stats", "GET", "/admin/stats", ""},
		{"webhooks", "GET", "/admin/webhooks", ""},
		{"webhooks show crm", "GET", "/admin/webhooks/crm", ""},
	} {
		code, out, said := command(t, url, append(strings.Fields(c.command), "--json")...)
		require.Equal(t, 0, code, "%s: %s", c.command, said)
		require.Empty(t, said)
		require.Equal(t, 1, strings.Count(out, "\n"), c.command)
		require.JSONEq(t, ask(c.method, c.path, c.body), out, c.command)
		code, out, said = command(t, url, strings.Fields(c.command)...)
		require.Equal(t, 0, code, "%s: %s", c.command, said)
		require.NotContains(t, out, `{"id"`, c.command)
		require.NotEmpty(t, out, c.command)
	}
}

// What changes something answers as its route does, too.
func TestJSONOfWhatChangesSomething(t *testing.T) {
	t.Parallel()
	pool, _ := planted(t)
	url := pool.Config().ConnString()
	for _, c := range []struct {
		command string
		code    int
		want    map[string]any
	}{
		{"consumers pause billing", 0, map[string]any{"name": "billing", "paused": true}},
		{"consumers resume billing", 0, map[string]any{"name": "billing", "paused": false}},
		{"consumers unsubscribe billing cart.*", 0, map[string]any{"name": "billing", "unsubscribed": "cart.*"}},
		{"dlq rehearse 1", 1, map[string]any{"letter_id": 1.0, "outcome": "fails"}},
		{"dlq replay 1 --reason=r", 0, map[string]any{"id": 1.0, "state": "replaying"}},
		{"dlq dismiss 2 --reason=r", 0, map[string]any{"id": 2.0, "released_count": 0.0}},
		{"operations stop 1 --reason=r", 0, map[string]any{"id": 1.0, "state": "stopped"}},
		{"webhooks set crm --type=order.paid --type=cart.*", 0, map[string]any{"name": "crm", "types": []any{"cart.*", "order.paid"}}},
		{"webhooks disable crm --reason=r", 0, map[string]any{"name": "crm", "state": "disabled"}},
		{"webhooks enable crm", 0, map[string]any{"name": "crm", "state": "working"}},
		{"webhooks rotate crm", 0, map[string]any{"name": "crm"}},
		{"webhooks test crm", 1, map[string]any{"status": nil, "error": "address not allowed"}},
		{"webhooks remove crm", 0, map[string]any{"consumer": "webhook-crm"}},
		{"webhooks add erp https://erp.example/ --type=*", 0, map[string]any{"name": "erp", "url": "https://erp.example/", "state": "working"}},
		{"consumers remove billing --force --reason=r", 0, map[string]any{"consumer": "billing"}},
	} {
		code, out, said := command(t, url, append(strings.Fields(c.command), "--json")...)
		require.Equal(t, c.code, code, "%s: %s", c.command, said)
		require.Equal(t, code != 0, said != "", "errors go to the standard error, as ever")
		var got map[string]any
		require.NoError(t, json.Unmarshal([]byte(out), &got), "%s: %s", c.command, out)
		for name, value := range c.want {
			require.Equal(t, value, got[name], "%s: %s of %s", c.command, name, out)
		}
	}
}

// Where the schema is, also migrate tells a program.
func TestMigrateSpeaksJSON(t *testing.T) {
	t.Parallel()
	url := testdb.Empty(t)
	type row struct {
		Set, Name string
		AppliedAt *string `json:"applied_at"`
	}
	pending := func(args ...string) (n int) {
		t.Helper()
		all := items[row](t, url, append(args, "--json")...)
		require.NotEmpty(t, all)
		for _, r := range all {
			if r.AppliedAt == nil {
				n++
			}
		}
		return n
	}
	require.Positive(t, pending("migrate", "status"))
	require.Zero(t, pending("migrate", "up"))
	require.Zero(t, pending("migrate", "status"))
	require.Positive(t, pending("migrate", "down"))
}

// Whether the service is ready, healthcheck says in the service's own words, and by its exit code.
func TestHealthcheckSpeaksJSON(t *testing.T) {
	t.Parallel()
	service := func(code int, answer string) (env []string) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" {
				w.WriteHeader(code)
				_, _ = w.Write([]byte(answer))
			}
		}))
		t.Cleanup(server.Close)
		return []string{"OUTBOX_ADMIN_ADDR=" + strings.TrimPrefix(server.URL, "http://")}
	}
	ready, unready := `{"status":"ready","warnings":["the standby is asynchronous"]}`, `{"type":"unavailable","status":503}`
	env := service(http.StatusOK, ready)
	code, out, said := commandIn(t, env, "healthcheck", "--json")
	require.Equal(t, 0, code, said)
	require.JSONEq(t, ready, out)
	_, out, _ = commandIn(t, env, "healthcheck")
	require.Empty(t, out)
	code, out, said = commandIn(t, service(http.StatusServiceUnavailable, unready), "healthcheck", "--json")
	require.Equal(t, 1, code)
	require.JSONEq(t, unready, out)
	require.Contains(t, said, "not ready")
	code, out, _ = commandIn(t, []string{"OUTBOX_ADMIN_ADDR=127.0.0.1:1"}, "healthcheck", "--json")
	require.Equal(t, 1, code)
	require.Empty(t, out)
}

// 0: done; 1: it failed, or there is no such thing; 2: the command line cannot be, or nobody knows.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	pool, _ := planted(t)
	url, nowhere := pool.Config().ConnString(), "postgres://nobody@127.0.0.1:1/nothing"
	for _, c := range []struct {
		url, command string
		code         int
	}{
		{url, "stats", 0},
		{url, "dlq show 99", 1},
		{url, "dlq rehearse 99", 1},
		{url, "dlq replay 99", 1},
		{url, "dlq dismiss 99 --reason=r", 1},
		{url, "operations show 99", 1},
		{url, "operations stop 99 --reason=r", 1},
		{url, "backfills show 99", 1},
		{url, "backfills stop 99 --reason=r", 1},
		{url, "consumers pause nobody", 1},
		{url, "consumers backfill nobody --from=beginning --reason=r", 1},
		{url, "webhooks show nobody", 1},
		{url, "webhooks remove nobody", 1},
		{url, "webhooks test nobody", 1},
		{url, "webhooks replay nobody --since=2026-01-31T12:00:00Z --reason=r", 1},
		{url, "webhooks add crm https://crm.example/ --type=*", 1},
		{url, "webhooks replay crm --since=2026-01-31T12:00:00Z --reason=r", 1},
		{url, "webhooks add a https://a.example/", 2},
		{url, "webhooks add A https://a.example/ --type=*", 2},
		{url, "webhooks add a ftp://a.example/ --type=*", 2},
		{url, "webhooks add a https://10.0.0.1/ --type=*", 2},
		{url, "webhooks add a https://a.example/ --type=* --from=soon", 2},
		{url, "webhooks add a https://a.example/ --type=* --secret-stdin", 2},
		{url, "webhooks set crm", 2},
		{url, "webhooks replay crm --since=soon", 2},
		{url, "webhooks replay crm --since=2026-01-31T12:00:00Z", 2},
		{url, "events 0190c2f0-0000-7000-8000-000000000000", 1},
		{url, "trace nothing", 1},
		{url, "search nothing", 1},
		{nowhere, "stats", 1},
		{nowhere, "dlq", 1},
		{"", "dlq", 1},
		{nowhere, "check", 2},
		{nowhere, "dlq rehearse 1", 2},
		{url, "nothing", 2},
		{url, "dlq ls --nothing", 2},
		{url, "dlq ls --limit=0", 2},
		{url, "dlq ls --limit=9999999999", 2},
		{url, "dlq ls --cursor=x", 2},
		{url, "dlq groups --cursor=7", 2},
		{url, "dlq show x", 2},
		{url, "dlq dismiss 1", 2},
		{url, "dlq replay --all --yes --reason=r --rate=0", 2},
		{url, "events not-an-id", 2},
		{url, "operations ls --limit=-1", 2},
		{url, "audit --limit=0", 2},
		{url, "search x --limit=0", 2},
		{url, "consumers backfill billing --from=yesterday --reason=r", 2},
		{url, "consumers backfill billing --from=beginning --until=now --reason=r", 2},
		{url, "consumers backfill billing --from=beginning", 2},
	} {
		code, out, said := command(t, c.url, strings.Fields(c.command)...)
		require.Equal(t, c.code, code, "%s: %s", c.command, said)
		require.Equal(t, code != 0, said != "", c.command)
		require.Equal(t, code == 0, out != "", c.command)
	}
}
