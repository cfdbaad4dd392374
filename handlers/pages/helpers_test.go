package pages_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

const (
	token   = "a-token-of-annas"
	address = "ada@example.com"
	// poison stands wherever a producer or a person can put a text.
	poison = `<script>alert("x")</script>'"&`
)

// idleJobs stands for the job queue: it takes everything and does nothing.
type idleJobs struct{}

func (idleJobs) WakeLanes(context.Context, pgx.Tx, []outbox.Lane) error { return nil }
func (idleJobs) Deliver(_ context.Context, _ pgx.Tx, d []outbox.Delivery) ([]int64, error) {
	return make([]int64, len(d)), nil
}
func (idleJobs) SetPaused(context.Context, pgx.Tx, string, bool) error { return nil }
func (idleJobs) StartRelay(context.Context, pgx.Tx) error              { return nil }

// office is the operators' listener, on a database of its own, and a browser that keeps cookies and follows no redirect.
type office struct {
	t      testing.TB
	pool   *pgxpool.Pool
	url    string
	client *http.Client
}

func newOffice(t testing.TB) *office {
	t.Helper()
	return newOfficeOf(t, nil)
}

// newOfficeOf is an office in a process that has the consumers' code.
func newOfficeOf(t testing.TB, reg *outbox.Registry) *office {
	t.Helper()
	o := &office{t: t, pool: testdb.Pool(t)}
	operator := outbox.NewOperator(o.pool, idleJobs{}, "", nil).WithConsumers(reg)
	admission, err := outbox.NewAdmission(operator, time.Minute, nil)
	require.NoError(t, err)
	server := httptest.NewServer(handlers.NewAdmin(handlers.AdminConfig{
		Config:   handlers.Config{Pool: o.pool, Logger: slog.New(slog.DiscardHandler), Admission: admission},
		Operator: operator, Tokens: map[string]string{token: "anna", "a-token-of-berts": "bert"},
		Webhooks: webhooks.New(o.pool, operator, "", webhooks.Options{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}),
	}))
	t.Cleanup(server.Close)
	o.url = server.URL
	o.leave()
	return o
}

// leave forgets the session.
func (o *office) leave() {
	jar, err := cookiejar.New(nil)
	require.NoError(o.t, err)
	o.client = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// send makes a request; with a form it is that form's.
func (o *office) send(method, path string, form url.Values, header ...string) answer {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, o.url+path, strings.NewReader(form.Encode()))
	require.NoError(o.t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return o.answerTo(req, header...)
}

func (o *office) answerTo(req *http.Request, header ...string) answer {
	o.t.Helper()
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := o.client.Do(req)
	require.NoError(o.t, err)
	raw, err := io.ReadAll(res.Body)
	require.NoError(o.t, err)
	require.NoError(o.t, res.Body.Close())
	return answer{res.StatusCode, res.Header, string(raw)}
}

func (o *office) get(path string) answer { o.t.Helper(); return o.send("GET", path, nil) }

func (o *office) post(path string, form url.Values) answer {
	o.t.Helper()
	return o.send("POST", path, form, "Sec-Fetch-Site", "same-origin")
}

func (o *office) signIn() {
	o.t.Helper()
	a := o.post("/admin/ui/login", url.Values{"token": {token}})
	require.Equal(o.t, 303, a.status, a.body)
	require.Equal(o.t, "/admin/ui", a.header.Get("Location"))
}

func (o *office) exec(sql string, args ...any) {
	o.t.Helper()
	_, err := o.pool.Exec(o.t.Context(), sql, args...)
	require.NoError(o.t, err)
}

func value[T any](o *office, sql string, args ...any) (v T) {
	o.t.Helper()
	require.NoError(o.t, o.pool.QueryRow(o.t.Context(), sql, args...).Scan(&v))
	return v
}

// fill plants an event of a user that one consumer gave up and another processed, with another event that waits behind it: dead letter 1 of
// billing, of correlation id corr-9. There is poison in all that may hold any text.
func (o *office) fill() (event uuid.UUID) {
	o.t.Helper()
	event, behind := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	const lane = `(hashtextextended('k' || $2::text, 0) & 63)::smallint`
	o.exec(`insert into consumers (name, kind) values ('billing', 'tx'), ('mailer', 'external')`)
	o.exec(`insert into consumer_subscriptions (consumer, pattern, from_pos) values ('billing', 'user.*', 0), ('mailer', 'user.signed_up', 0)`)
	o.exec(`insert into cursors (consumer, lane, pos) select c, n, 2 from generate_series(0, 63) n, unnest(array['billing', 'mailer']) c`)
	o.exec(`update relay_state set head = 2`)
	for i, id := range []uuid.UUID{event, behind} {
		o.exec(`insert into events (pos, seq, id, type, key, lane, data, correlation_id, source, schema_version, occurred_at, relayed_at)
			select $3, $3, $1, 'user.signed_up', 'k' || $2::text, `+lane+`, jsonb_build_object('secret', $2::text), $4, $2::text, 1, now() - interval '1 min', now() - interval '50 s'`,
			id, poison, i+1, []string{"corr-9", "corr-10"}[i])
		o.exec(`insert into processed_events (consumer, event_id) values ('mailer', $1)`, id)
	}
	o.exec(`insert into holds (consumer, event_id, key, lane, pos, reason, attempts, job_id)
		select 'billing', id, key, lane, pos, 'failed', 2, 5 from events where id = $1`, event)
	o.exec(`insert into waiting (consumer, key, pos, event_id, lane) select 'billing', key, pos, id, lane from events where id = $1`, behind)
	o.exec(`insert into delivery_log (consumer, event_id, attempt, outcome, error, at)
		select 'billing', $1, n, 'failed', 'broken ' || n || ' ' || $2::text || E'\nsecond line', now() - interval '40 s' + n * interval '10 s' from generate_series(1, 2) n`, event, poison)
	require.True(o.t, value[bool](o, `select outbox_bury('billing', $1, 5, null)`, event))
	o.exec(`insert into users (id, email, name, password_hash, signup_event_id) values ($1, $2, 'Ada', 'x', $3)`, uuid.New(), address, event)
	o.exec(`insert into audit (actor, action, target, reason, detail) values ($1::text, 'look', $1::text, $1::text, jsonb_build_object($1::text, $1::text))`, poison)
	return event
}

// page parses an answer and checks what holds for every page.
func (o *office) page(a answer) *html.Node {
	o.t.Helper()
	require.Equal(o.t, "text/html; charset=UTF-8", a.header.Get("Content-Type"))
	o.guarded(a)
	root, err := html.Parse(strings.NewReader(a.body))
	require.NoError(o.t, err)
	checkPage(o.t, root)
	require.NotContains(o.t, a.body, "<script>alert", "what others wrote is escaped")
	return root
}

// guarded checks the headers that every answer of the pages has.
func (o *office) guarded(a answer) {
	o.t.Helper()
	policy := a.header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
		require.Contains(o.t, policy, part)
	}
	require.NotContains(o.t, policy, "unsafe")
	require.Equal(o.t, "no-store", a.header.Get("Cache-Control"))
	require.Equal(o.t, "nosniff", a.header.Get("X-Content-Type-Options"))
	require.Equal(o.t, "DENY", a.header.Get("X-Frame-Options"))
}
