package pages_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// riverUI stands for River's: it keeps what it is asked for, and how many entries the audit has by then.
type riverUI struct {
	o      *office
	status int

	mu    sync.Mutex
	asked []string
}

func (r *riverUI) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	var audited int
	if r.o.pool != nil {
		_ = r.o.pool.QueryRow(req.Context(), `select count(*) from audit`).Scan(&audited)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, strings.TrimSpace(req.Method+" "+req.URL.RequestURI()+" "+string(body)+" "+strconv.Itoa(audited)))
	w.WriteHeader(r.status)
}

// last is what it was asked for since the last call.
func (r *riverUI) last() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = nil
	return asked
}

func newOfficeWithRiver(t testing.TB) (*office, *riverUI) {
	t.Helper()
	o := &office{t: t, pool: testdb.Pool(t)}
	ui := &riverUI{o: o, status: 200}
	server := httptest.NewServer(handlers.NewAdmin(handlers.AdminConfig{
		Config:   handlers.Config{Pool: o.pool, Logger: slog.New(slog.DiscardHandler)},
		Operator: outbox.NewOperator(o.pool, idleJobs{}, "", nil), Tokens: map[string]string{token: "anna"}, River: ui,
	}))
	t.Cleanup(server.Close)
	o.url = server.URL
	o.leave()
	return o, ui
}

func (o *office) ask(method, path, body string, header ...string) answer {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, o.url+path, strings.NewReader(body))
	require.NoError(o.t, err)
	req.Header.Set("Content-Type", "text/plain;charset=UTF-8") // as a browser does with a text
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	return o.answerTo(req, header...)
}

// refused requires an answer to be a problem of this kind, and River's UI not to have heard of the request.
func (o *office) refused(ui *riverUI, a answer, status int, slug string) (problem struct {
	Type, Detail string
	Errors       []struct{ Pointer string }
},
) {
	o.t.Helper()
	require.Equal(o.t, status, a.status, a.body)
	require.Equal(o.t, "application/problem+json", a.header.Get("Content-Type"))
	require.NoError(o.t, json.Unmarshal([]byte(a.body), &problem))
	require.Equal(o.t, slug, problem.Type, a.body)
	require.Empty(o.t, ui.last())
	return problem
}

var riverActions = [][2]string{
	{"POST", "/admin/river/api/jobs/cancel"},
	{"POST", "/admin/river/api/jobs/delete"},
	{"POST", "/admin/river/api/jobs/retry"},
	{"PUT", "/admin/river/api/queues/mine/pause"},
	{"PUT", "/admin/river/api/queues/mine/resume"},
}

func TestRiverUIIsBehindTheLogin(t *testing.T) {
	t.Parallel()
	o, ui := newOfficeWithRiver(t)
	for _, header := range [][]string{nil, {"Authorization", "Bearer " + token}} {
		for _, path := range []string{"/admin/river", "/admin/river/", "/admin/river/jobs?state=retryable", "/admin/river/assets/main.js"} {
			a := o.ask("GET", path, "", header...)
			require.Equal(t, 303, a.status, path)
			require.Equal(t, "/admin/ui/login?next="+url.QueryEscape(path), a.header.Get("Location"))
			require.Empty(t, ui.last())
		}
		a := o.ask("GET", "/admin/river/api/jobs", "", header...)
		o.refused(ui, a, 401, "unauthenticated")
		require.Empty(t, a.header.Get("WWW-Authenticate"), "no bearer is of use here")
		for _, action := range riverActions {
			o.refused(ui, o.ask(action[0], action[1], `{"ids":["1"]}`, header...), 401, "unauthenticated")
		}
		o.refused(ui, o.ask("DELETE", "/admin/river/api/jobs/1", "", header...), 401, "unauthenticated")
	}
	require.Zero(t, value[int](o, `select count(*) from audit`))

	next := "/admin/river/jobs?state=retryable"
	a := o.post("/admin/ui/login", url.Values{"token": {token}, "next": {next}})
	require.Equal(t, next, a.header.Get("Location"))
	a = o.get(next)
	require.Equal(t, 200, a.status)
	require.Equal(t, []string{"GET " + next + "  0"}, ui.last())
	policy := a.header.Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self';")
	require.Contains(t, policy, "frame-ancestors 'none'")
	require.Equal(t, 1, strings.Count(policy, "unsafe"))
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	require.Contains(t, o.get("/admin/ui/search").body, `href="/admin/river/"`)
	require.Equal(t, 401, o.get("/admin/dlq").status, "the cookie opens nothing else")
	require.Equal(t, 401, o.get("/admin/riverside").status)
}

func TestWithoutRiverUIThereIsNone(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	require.Equal(t, 401, o.get("/admin/river/").status)
	require.Equal(t, 404, o.ask("GET", "/admin/river/", "", "Authorization", "Bearer "+token).status)
	o.signIn()
	require.Equal(t, 401, o.get("/admin/river/").status)
	require.NotContains(t, o.get("/admin/ui/search").body, "/admin/river")
}

func TestRiverUIRefusesAnotherSite(t *testing.T) {
	t.Parallel()
	o, ui := newOfficeWithRiver(t)
	o.signIn()
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "", "Origin", "https://evil.example"},
		{"Sec-Fetch-Site", "", "Origin", "null"},
	} {
		for _, action := range riverActions {
			o.refused(ui, o.ask(action[0], action[1], `{"ids":["1"]}`, header...), 403, "other-site")
		}
	}
	require.Zero(t, value[int](o, `select count(*) from audit`))
}

// What River's UI is to do is in the audit before it hears of it, and it hears of nothing else.
func TestRiverUIDoesWhatTheAuditSays(t *testing.T) {
	t.Parallel()
	o, ui := newOfficeWithRiver(t)
	o.signIn()
	o.exec(`insert into river_job (id, kind, queue, args, max_attempts, state) values
		(7, 'outbox_deliver', 'deliver_mail', '{"consumer":"mail","event_id":"0190c2f0-0000-7000-8000-000000000000","correlation_id":"corr-9"}', 3, 'available'),
		(8, 'foreign', 'mine', '{"consumer":"nobody''s business"}', 3, 'scheduled')`)
	for i, action := range []string{"cancel", "delete", "retry"} {
		a := o.ask("POST", "/admin/river/api/jobs/"+action+"?x=1", `{"ids":["7", 8, "9"]}`)
		require.Equal(t, 200, a.status, a.body)
		require.Equal(t, []string{`POST /admin/river/api/jobs/` + action + ` {"ids":[7,8,9]} ` + strconv.Itoa(i+1)}, ui.last())
		require.True(t, value[bool](o, `select actor = 'anna' and action = $1 and target = '3 jobs' and detail = '{"outcome": "done", "jobs": [
			{"id": 7, "kind": "outbox_deliver", "queue": "deliver_mail", "state": "available", "consumer": "mail", "correlation_id": "corr-9", "event_id": "0190c2f0-0000-7000-8000-000000000000"},
			{"id": 8, "kind": "foreign", "queue": "mine", "state": "scheduled"}, {"id": 9}]}' from audit order by id desc limit 1`, action))
	}
	for _, action := range []string{"pause", "resume"} {
		require.Equal(t, 200, o.ask("PUT", "/admin/river/api/queues/mi%2Fne/"+action, `{"what":"is this"}`).status)
		require.Equal(t, "PUT /admin/river/api/queues/mi%2Fne/"+action+"  ", strings.TrimRight(ui.last()[0], "0123456789"))
		require.True(t, value[bool](o, `select action = $1 and target = 'queue mi/ne' and detail ->> 'outcome' = 'done' from audit order by id desc limit 1`, action))
	}
	ui.status = 404
	require.Equal(t, 404, o.ask("POST", "/admin/river/api/jobs/cancel", `{"ids":["9"]}`).status)
	require.True(t, value[bool](o, `select target = 'job 9' and detail ->> 'outcome' = 'not done: answered with 404' from audit order by id desc limit 1`))
	ui.last()

	// No entry, no deed.
	o.exec(`alter table audit rename to elsewhere`)
	for _, action := range riverActions {
		o.refused(ui, o.ask(action[0], action[1], `{"ids":["7"]}`), 503, "unavailable")
	}
}

func TestRiverUIRefusesWhatCouldDoHarm(t *testing.T) {
	t.Parallel()
	o, ui := newOfficeWithRiver(t)
	o.signIn()
	for _, c := range []struct{ queue, action, says string }{
		{"outbox_relay", "pause", "/admin/consumers/{name}/pause"},
		{"outbox%5Frelay", "pause", "/admin/consumers/{name}/pause"},
		{"outbox_billing", "pause", "/admin/consumers/{name}/pause"},
		{"deliver_billing", "pause", "/admin/consumers/{name}/pause"},
		{"deliver_billing", "resume", "/admin/consumers/{name}/resume"},
		{"%6futbox_billing", "resume", "/admin/consumers/{name}/resume"},
		{"*", "pause", "one by one"},
		{"%2A", "resume", "one by one"},
	} {
		p := o.refused(ui, o.ask("PUT", "/admin/river/api/queues/"+c.queue+"/"+c.action, ""), 409, "engine-queue")
		require.Contains(t, p.Detail, c.says)
		require.NotContains(t, p.Detail, "billing")
	}
	o.refused(ui, o.ask("PATCH", "/admin/river/api/queues/mine", `{"concurrency":{"global_limit":1}}`), 409, "engine-queue")
	require.Equal(t, 200, o.ask("PUT", "/admin/river/api/queues/outbox_relay/resume", "").status)
	require.Len(t, ui.last(), 1)

	for body, pointer := range map[string]string{
		`{}`: "/ids", `{"ids":[]}`: "/ids", `{"ids":"7"}`: "/ids", `{"ids":null}`: "/ids", `{"ids":{}}`: "/ids",
		`{"ids":["7","x"]}`: "/ids/1", `{"ids":[1.5]}`: "/ids/0", `{"ids":[-1]}`: "/ids/0", `{"ids":[null]}`: "/ids/0",
		`{"ids":["7"],"all":true}`: "/all", `{"IDs":["7"]}`: "/IDs", `[]`: "",
		`{"ids":[` + strings.Repeat("1,", 1000) + `1]}`: "/ids",
	} {
		for _, action := range []string{"cancel", "delete", "retry"} {
			p := o.refused(ui, o.ask("POST", "/admin/river/api/jobs/"+action, body), 422, "validation")
			require.Equal(t, pointer, p.Errors[0].Pointer, body)
		}
	}
	for _, body := range []string{``, `{`, `{"ids":["7"],"ids":["8"]}`} {
		require.Equal(t, 400, o.ask("POST", "/admin/river/api/jobs/cancel", body).status, body)
	}
	require.Equal(t, 413, o.ask("POST", "/admin/river/api/jobs/cancel", strings.Repeat(" ", 70_000)).status)

	// What is not known here is not handed on, however it is written.
	for _, request := range [][2]string{
		{"POST", "/admin/river/api/jobs/discard"},
		{"POST", "/admin/river/api/jobs/cancel/"},
		{"POST", "/admin/river//api/jobs/cancel"},
		{"POST", "/admin/river/api/jobs/../jobs/cancel"},
		{"POST", "/admin/river/api/jobs%2Fcancel"},
		{"POST", "/admin/%72iver/api/jobs/cancel"},
		{"PUT", "/admin/river/api/jobs/cancel"},
		{"PATCH", "/admin/river/api/jobs/7"},
		{"DELETE", "/admin/river/api/jobs/7"},
		{"PUT", "/admin/river/api/queues/mine/pause/"},
		{"POST", "/admin/river/api/workflows/1/cancel"},
		{"POST", "/admin/river"},
		{"QUERY", "/admin/river/api/jobs/cancel"},
	} {
		a := o.ask(request[0], request[1], `{"ids":["7"]}`)
		require.Contains(t, []int{404, 405}, a.status, request)
		require.Empty(t, ui.last(), request)
	}
	require.Equal(t, 1, value[int](o, `select count(*) from audit`))
}
