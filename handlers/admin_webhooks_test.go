package handlers_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// receiver is an endpoint that answers with a status, and what it was sent last.
type receiver struct {
	url    string
	status atomic.Int32
	header atomic.Pointer[http.Header]
	body   atomic.Pointer[string]
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.status.Store(http.StatusOK)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		raw, _ := io.ReadAll(req.Body)
		body := string(raw)
		r.header.Store(&req.Header)
		r.body.Store(&body)
		w.WriteHeader(int(r.status.Load()))
		_, _ = w.Write([]byte("what the receiver says"))
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func TestWebhooksThatCannotBe(t *testing.T) {
	t.Parallel()
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	status, answer := o.ask("GET", "/admin/webhooks", "")
	require.Equal(t, 200, status)
	require.Equal(t, map[string]any{"items": []any{}, "next_cursor": nil}, answer)
	for body, field := range map[string]string{
		`{"name":"A b","url":"https://x.example/","types":["*"]}`:                                               "/name",
		`{"name":"a","url":"https://user:canary@x.example/","types":["*"]}`:                                     "/url",
		`{"name":"a","url":"http://x.example:99999/","types":["*"]}`:                                            "/url",
		`{"name":"a","url":"https://10.0.0.1/?canary","types":["*"]}`:                                           "/url",
		`{"name":"a","url":"https://x.example/","types":[]}`:                                                    "/types",
		`{"name":"a","url":"https://x.example/","types":["no types"]}`:                                          "/types",
		`{"name":"a","url":"https://x.example/","types":["*"],"secret":"canary"}`:                               "/secret",
		`{"name":"a","url":"https://x.example/","types":["*"],"from":"yesterday"}`:                              "/from",
		`{"name":"a","url":"https://x.example/","types":["*"],"colour":"red"}`:                                  "/colour",
		`{"name":"a","url":"https://x.example/","types":"*"}`:                                                   "/types",
		`{"name":"a","url":"https://x.example/","types":["*"],"reason":"` + strings.Repeat("long ", 201) + `"}`: "/reason",
	} {
		status, answer := o.ask("POST", "/admin/webhooks", body)
		require.Equal(t, 422, status, body)
		require.Equal(t, field, answer["errors"].([]any)[0].(map[string]any)["pointer"], body)
		require.NotContains(t, fmt.Sprint(answer), "canary")
	}
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/admin/webhooks/nobody", ""},
		{"PATCH", "/admin/webhooks/nobody", `{"types":["*"]}`},
		{"DELETE", "/admin/webhooks/nobody", ""},
		{"POST", "/admin/webhooks/nobody/enable", ""},
		{"POST", "/admin/webhooks/nobody/disable", ""},
		{"POST", "/admin/webhooks/nobody/rotate", ""},
		{"POST", "/admin/webhooks/nobody/test", ""},
		{"POST", "/admin/webhooks/nobody/replay", `{"since":"2026-01-31T12:00:00Z","reason":"r"}`},
		{"GET", "/admin/webhooks/%00", ""},
		{"DELETE", "/admin/webhooks/%ff", ""},
	} {
		status, answer := o.ask(c.method, c.path, c.body)
		require.Equal(t, 404, status, c.path)
		require.Equal(t, "not-found", answer["type"])
		status, _ = o.do(c.method, c.path, "", c.body)
		require.Equal(t, 401, status, c.path)
	}
}

func TestWebhooksOfOperators(t *testing.T) {
	t.Parallel()
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	to := newReceiver(t)
	body := fmt.Sprintf(`{"name":"crm","url":"%s/hooks?token=canary","types":["user.*","order.paid"],"reason":"they asked"}`, to.url)
	status, made := o.ask("POST", "/admin/webhooks", body)
	require.Equal(t, 201, status, made)
	secret := made["secret"].(string)
	require.True(t, strings.HasPrefix(secret, "whsec_"))
	require.Equal(t, "crm", made["name"])
	require.Equal(t, "webhook-crm", made["consumer"])
	require.Equal(t, []any{"order.paid", "user.*"}, made["types"])
	require.Equal(t, "working", made["state"])
	status, answer := o.ask("POST", "/admin/webhooks", body)
	require.Equal(t, 409, status)
	require.Equal(t, "conflict", answer["type"])

	status, answer = o.ask("GET", "/admin/webhooks", "")
	require.Equal(t, 200, status)
	require.Len(t, answer["items"], 1)
	require.NotContains(t, fmt.Sprint(answer), "secret")
	require.NotContains(t, fmt.Sprint(answer), "canary")
	status, shown := o.ask("GET", "/admin/webhooks/crm", "")
	require.Equal(t, 200, status)
	require.Equal(t, answer["items"].([]any)[0], shown)

	// A test says what came of it, and not what the endpoint said.
	status, answer = o.ask("POST", "/admin/webhooks/crm/test", "")
	require.Equal(t, 200, status)
	require.EqualValues(t, 200, answer["status"])
	require.Nil(t, answer["error"])
	require.Contains(t, *to.body.Load(), `"pgoutbox.test"`)
	require.NotEmpty(t, to.header.Load().Get("webhook-signature"))
	to.status.Store(http.StatusTeapot)
	status, answer = o.ask("POST", "/admin/webhooks/crm/test", `{"reason":"once more"}`)
	require.Equal(t, 200, status)
	require.EqualValues(t, 418, answer["status"])
	require.Equal(t, "answered 418", answer["error"])

	status, answer = o.ask("PATCH", "/admin/webhooks/crm", `{}`)
	require.Equal(t, 422, status, answer)
	status, answer = o.ask("PATCH", "/admin/webhooks/crm", `{"types":[]}`)
	require.Equal(t, 422, status, answer)
	status, answer = o.ask("PATCH", "/admin/webhooks/crm", `{"types":["cart.*"],"url":"https://crm.example/"}`)
	require.Equal(t, 200, status, answer)
	require.Equal(t, []any{"cart.*"}, answer["types"])
	require.Equal(t, "https://crm.example/", answer["url"])

	status, answer = o.ask("POST", "/admin/webhooks/crm/disable", `{"reason":"it is down"}`)
	require.Equal(t, 200, status, answer)
	require.Equal(t, "disabled", answer["state"])
	require.Contains(t, answer["disabled_reason"], "it is down")
	status, answer = o.ask("POST", "/admin/webhooks/crm/enable", "")
	require.Equal(t, 200, status, answer)
	require.Equal(t, "working", answer["state"])

	status, answer = o.ask("POST", "/admin/webhooks/crm/rotate", "")
	require.Equal(t, 200, status, answer)
	rotated := answer["secret"].(string)
	require.NotEqual(t, secret, rotated)
	require.NotEmpty(t, answer["old_secret_until"])

	for body, field := range map[string]string{
		`{"since":"yesterday","reason":"r"}`: "/since", `{"reason":"r"}`: "/since", `{"since":"2026-01-31T12:00:00Z"}`: "/reason",
	} {
		status, answer = o.ask("POST", "/admin/webhooks/crm/replay", body)
		require.Equal(t, 422, status, body)
		require.Equal(t, field, answer["errors"].([]any)[0].(map[string]any)["pointer"], body)
	}
	status, answer = o.ask("POST", "/admin/webhooks/crm/replay", `{"since":"2026-01-31T12:00:00Z","reason":"r"}`)
	require.Equal(t, 409, status, answer)
	require.Contains(t, answer["detail"], "nothing to run")

	// An event is in the log, and held: its type is not to be ended meanwhile, and then it can be sent again.
	for _, sql := range []string{
		`insert into events (pos, seq, id, type, key, lane, data, correlation_id, source, schema_version, occurred_at)
		 select 1, 1, gen_random_uuid(), 'cart.created', 'k', hashtextextended('k', 0) & 63, '{}', 'corr-9', '', 1, now()`,
		`update relay_state set head = 1`,
		`update cursors set pos = 1 where consumer = 'webhook-crm'`,
		`insert into holds (consumer, event_id, key, lane, pos, reason, attempts, job_id) select 'webhook-crm', id, key, lane, pos, 'external', 0, 5 from events`,
	} {
		_, err := o.pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	status, answer = o.ask("PATCH", "/admin/webhooks/crm", `{"types":["order.*"]}`)
	require.Equal(t, 409, status, answer)
	_, err := o.pool.Exec(t.Context(), `delete from holds`)
	require.NoError(t, err)
	status, answer = o.ask("POST", "/admin/webhooks/crm/replay", `{"since":"2026-01-31T12:00:00Z","reason":"r"}`)
	require.Equal(t, 202, status, answer)
	require.Equal(t, "webhook-crm", answer["consumer"])

	status, answer = o.ask("DELETE", "/admin/webhooks/crm", `{"reason":"they are gone","force":true}`)
	require.Equal(t, 200, status, answer)
	require.Equal(t, "webhook-crm", answer["consumer"])
	status, _ = o.ask("GET", "/admin/webhooks/crm", "")
	require.Equal(t, 404, status)

	var actions []string
	var said string
	require.NoError(t, o.pool.QueryRow(t.Context(), `select array_agg(distinct action order by action), string_agg(audit::text, ' ') from audit
		where target in ('webhook crm', 'consumer webhook-crm') and actor = 'anna'`).Scan(&actions, &said))
	for _, action := range []string{"create", "change", "disable", "enable", "rotate", "test", "remove"} {
		require.Contains(t, actions, action)
	}
	for _, hidden := range []string{secret, rotated, "canary"} {
		require.NotContains(t, said, hidden)
	}
}
