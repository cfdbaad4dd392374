package handlers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// idleJobs stands for the job queue: it takes everything and does nothing.
type idleJobs struct{}

func (idleJobs) WakeLanes(context.Context, pgx.Tx, []outbox.Lane) error { return nil }
func (idleJobs) Deliver(_ context.Context, _ pgx.Tx, d []outbox.Delivery) ([]int64, error) {
	return make([]int64, len(d)), nil
}
func (idleJobs) SetPaused(context.Context, pgx.Tx, string, bool) error { return nil }
func (idleJobs) StartRelay(context.Context, pgx.Tx) error              { return nil }

const operatorToken = "a token of anna's"

type office struct {
	t    testing.TB
	pool *pgxpool.Pool
	url  string
}

// newOffice is one in a process that has the code of these consumers, if any.
func newOffice(t testing.TB, tokens map[string]string, code ...*outbox.Registry) *office {
	t.Helper()
	o := &office{t: t, pool: testdb.Pool(t)}
	operator := outbox.NewOperator(o.pool, idleJobs{}, "", nil)
	for _, reg := range code {
		operator = operator.WithConsumers(reg)
	}
	e := watch(t, "admin", handlers.NewAdmin(handlers.AdminConfig{
		Config:   handlers.Config{Pool: o.pool, Logger: slog.New(slog.DiscardHandler)},
		Operator: operator, Tokens: tokens,
		Webhooks: webhooks.New(o.pool, operator, "", webhooks.Options{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}),
	}))
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	o.url = server.URL
	return o
}

func (o *office) do(method, path, token, body string) (int, map[string]any) {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, o.url+path, strings.NewReader(body))
	require.NoError(o.t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(o.t, err)
	defer func() { require.NoError(o.t, res.Body.Close()) }()
	raw, err := io.ReadAll(res.Body)
	require.NoError(o.t, err)
	var document map[string]any
	require.NoError(o.t, json.NewDecoder(bytes.NewReader(raw)).Decode(&document), string(raw))
	return res.StatusCode, document
}

func (o *office) ask(method, path, body string) (int, map[string]any) {
	o.t.Helper()
	return o.do(method, path, "Bearer "+operatorToken, body)
}

// deadLetter plants an event with a dead letter, as the trigger leaves it.
func (o *office) deadLetter(data string) (letter int64, event uuid.UUID) {
	o.t.Helper()
	event = uuid.Must(uuid.NewV7())
	for _, sql := range []string{
		`insert into consumers (name, kind) values ('billing', 'tx') on conflict do nothing`,
		`insert into events (pos, seq, id, type, key, lane, data, correlation_id, source, schema_version, occurred_at)
		 select 1, 1, $1, 'user.signed_up', 'k', hashtextextended('k', 0) & 63, $2::jsonb, 'corr-9', '', 1, now()`,
		`insert into holds (consumer, event_id, key, lane, pos, reason, attempts, job_id) select 'billing', $1, 'k', lane, 1, 'failed', 3, 5 from events where $2::text is not null`,
		`insert into delivery_log (consumer, event_id, attempt, outcome, error) select 'billing', $1, 1, 'failed', 'broken' where $2::text is not null`,
	} {
		args := []any{event, data}
		if !strings.Contains(sql, "$1") {
			args = nil
		}
		_, err := o.pool.Exec(o.t.Context(), sql, args...)
		require.NoError(o.t, err)
	}
	var buried bool
	require.NoError(o.t, o.pool.QueryRow(o.t.Context(), `select outbox_bury('billing', $1, 5, null)`, event).Scan(&buried))
	require.True(o.t, buried)
	require.NoError(o.t, o.pool.QueryRow(o.t.Context(), `select id from discarded_jobs`).Scan(&letter))
	return letter, event
}

func TestAdminLetsOnlyOperatorsIn(t *testing.T) {
	t.Parallel()
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	for _, path := range []string{"/admin/dlq", "/admin/dlq/1", "/admin/events/x", "/admin/trace/x", "/admin/consumers", "/admin/dlq/groups", "/admin/audit", "/admin/search", "/admin/operations", "/admin/operations/1", "/admin/stats", "/admin/nothing"} {
		for _, token := range []string{"", "Bearer ", "Bearer wrong", "Basic " + operatorToken, operatorToken} {
			status, document := o.do("GET", path, token, "")
			require.Equal(t, 401, status, "%s with %q", path, token)
			require.Equal(t, "unauthenticated", document["type"])
		}
	}
	status, _ := o.ask("GET", "/admin/dlq", "")
	require.Equal(t, 200, status)

	closed := newOffice(t, nil)
	for _, path := range []string{"/admin/dlq", "/admin/consumers"} {
		status, _ := closed.ask("GET", path, "")
		require.Equal(t, 404, status, "without tokens there is no %s", path)
	}
	status, _ = closed.ask("GET", "/healthz", "")
	require.Equal(t, 200, status)
}

func TestAdminRefusesByName(t *testing.T) {
	t.Parallel()
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	letter, _ := o.deadLetter(`{"user_id": "x"}`)
	require.EqualValues(t, 1, letter)
	for _, c := range []struct {
		method, path, body string
		status             int
		pointer            string
	}{
		{"GET", "/admin/dlq?state=gone", "", 422, "?state"},
		{"GET", "/admin/dlq?limit=0", "", 422, "?limit"},
		{"GET", "/admin/dlq?since=yesterday", "", 422, "?since"},
		{"GET", "/admin/dlq?cursor=x", "", 422, "?cursor"},
		{"GET", "/admin/dlq?colour=red", "", 422, "?colour"},
		{"GET", "/admin/dlq?key=%00", "", 422, "?key"},
		{"GET", "/admin/dlq/groups?state=gone", "", 422, "?state"},
		{"GET", "/admin/dlq/groups?cursor=7", "", 422, "?cursor"},
		{"GET", "/admin/dlq/groups?cursor=7.1x", "", 422, "?cursor"},
		{"GET", "/admin/audit?cursor=x", "", 422, "?cursor"},
		{"GET", "/admin/audit?who=anna", "", 422, "?who"},
		{"GET", "/admin/stats?consumer=billing", "", 422, "?consumer"},
		{"POST", "/admin/dlq/1/replay", `{"data":{"user_id":"y"}}`, 422, "/reason"},
		{"POST", "/admin/dlq/1/replay", `{"data":{"user_id":"y\u0000"},"reason":"r"}`, 422, "/data/user_id"},
		{"POST", "/admin/dlq/1/replay", `{"reason":7}`, 422, "/reason"},
		{"POST", "/admin/dlq/1/replay", `{"force":true}`, 422, "/reason"},
		{"POST", "/admin/dlq/1/replay", `{"force":1}`, 422, "/force"},
		{"POST", "/admin/dlq/1/rehearse", ``, 409, ""},
		{"POST", "/admin/dlq/2/rehearse", ``, 404, ""},
		{"POST", "/admin/dlq/1/rehearse", `{"data":{"user_id":"y\u0000"}}`, 422, "/data/user_id"},
		{"POST", "/admin/dlq/1/rehearse", `{"force":true}`, 422, "/force"},
		{"POST", "/admin/dlq/1/dismiss", `{"reason":" "}`, 422, "/reason"},
		{"POST", "/admin/dlq/1/dismiss", `{"reason":"` + strings.Repeat("x", 1001) + `"}`, 422, "/reason"},
		{"POST", "/admin/dlq/1/dismiss", ``, 400, ""},
		{"POST", "/admin/dlq/1/dismiss", `{"reason":"r","force":"yes"}`, 422, "/force"},
		{"POST", "/admin/dlq/2/dismiss", `{"reason":"r"}`, 404, ""},
		{"POST", "/admin/dlq/x/replay", ``, 404, ""},
		{"GET", "/admin/dlq/-1", "", 404, ""},
		{"GET", "/admin/events/not-an-id", "", 404, ""},
		{"GET", "/admin/events/" + uuid.NewString(), "", 404, ""},
		{"GET", "/admin/trace/nobody", "", 404, ""},
		{"GET", "/admin/trace/%20", "", 404, ""},
		{"POST", "/admin/consumers/nobody/pause", "", 404, ""},
		{"DELETE", "/admin/dlq/1", "", 405, ""},
	} {
		status, document := o.ask(c.method, c.path, c.body)
		require.Equal(t, c.status, status, "%s %s %s: %v", c.method, c.path, c.body, document)
		if c.pointer != "" {
			errs, _ := document["errors"].([]any)
			require.NotEmpty(t, errs, "%s %s", c.path, c.body)
			require.Equal(t, c.pointer, errs[0].(map[string]any)["pointer"], "%s %s", c.path, c.body)
		}
	}
	var untouched bool
	require.NoError(t, o.pool.QueryRow(t.Context(), `select state = 'dead' and replays = 0 from discarded_jobs`).Scan(&untouched))
	require.True(t, untouched)
}

func TestAdminShowsAndSettlesALetter(t *testing.T) {
	t.Parallel()
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	_, event := o.deadLetter(`{"user_id": "secret-datum"}`)

	status, list := o.ask("GET", "/admin/dlq?state=dead&consumer=billing&correlation_id=corr-9&error=BROK", "")
	require.Equal(t, 200, status)
	require.Len(t, list["items"], 1)
	encoded, err := json.Marshal(list)
	require.NoError(t, err)
	require.NotContains(t, string(encoded), "secret-datum", "lists hold no event data")

	status, groups := o.ask("GET", "/admin/dlq/groups?consumer=billing", "")
	require.Equal(t, 200, status)
	require.Len(t, groups["items"], 1)
	group := groups["items"].([]any)[0].(map[string]any)
	require.Equal(t, "broken", group["error"])
	status, list = o.ask("GET", "/admin/dlq?fingerprint="+group["fingerprint"].(string), "")
	require.Equal(t, 200, status)
	require.Len(t, list["items"], 1)

	status, letter := o.ask("GET", "/admin/dlq/1", "")
	require.Equal(t, 200, status)
	require.Equal(t, map[string]any{"user_id": "secret-datum"}, letter["data"])
	require.Len(t, letter["errors"], 1)

	status, _ = o.ask("GET", "/admin/events/"+event.String(), "")
	require.Equal(t, 200, status)
	status, trace := o.ask("GET", "/admin/trace/corr-9", "")
	require.Equal(t, 200, status)
	require.Len(t, trace["events"], 1)

	status, _ = o.ask("POST", "/admin/dlq/1/dismiss", `{"reason":"a test"}`)
	require.Equal(t, 200, status)
	status, again := o.ask("POST", "/admin/dlq/1/replay", "")
	require.Equal(t, 409, status, again)
	var kept string
	require.NoError(t, o.pool.QueryRow(t.Context(), `select actor || ' ' || action || ' ' || target || ' ' || reason from audit`).Scan(&kept))
	require.Equal(t, "anna dismiss dead letter 1 a test", kept)
	status, audit := o.ask("GET", "/admin/audit?actor=anna", "")
	require.Equal(t, 200, status)
	require.Len(t, audit["items"], 1)
	_, groups = o.ask("GET", "/admin/dlq/groups", "")
	require.Empty(t, groups["items"], "unless asked for, groups are of what is dead")

	status, _ = o.ask("POST", "/admin/consumers/billing/pause", `{"reason":"a look"}`)
	require.Equal(t, 200, status)
	_, consumers := o.ask("GET", "/admin/consumers", "")
	require.Contains(t, consumers["items"].([]any)[0], "paused_at")
	status, _ = o.ask("POST", "/admin/consumers/billing/resume", "")
	require.Equal(t, 200, status)

	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/admin/consumers/billing/backfill", `{"from":"yesterday","reason":"x"}`, 422},
		{"/admin/consumers/billing/backfill", `{"from":"beginning","until":"today","reason":"x"}`, 422},
		{"/admin/consumers/billing/backfill", `{"from":"beginning"}`, 422},
		{"/admin/consumers/billing/backfill", `{"from":"beginning","reason":"x","often":true}`, 422},
		{"/admin/consumers/nobody/backfill", `{"from":"beginning","reason":"x"}`, 404},
		{"/admin/backfills/7/stop", ``, 404},
		{"/admin/consumers/billing/unsubscribe", `{}`, 422},
		{"/admin/consumers/billing/unsubscribe", `{"pattern":"cart.*"}`, 404},
		{"/admin/consumers/nobody/remove", ``, 404},
		{"/admin/consumers/billing/remove", `{"force":true}`, 422},
	} {
		status, answer := o.ask("POST", c.path, c.body)
		require.Equal(t, c.status, status, "%s %s: %v", c.path, c.body, answer)
	}
	status, removal := o.ask("POST", "/admin/consumers/billing/remove", `{"force":true,"reason":"a test"}`)
	require.Equal(t, 200, status, removal)
	require.Equal(t, "billing", removal["consumer"])
}
