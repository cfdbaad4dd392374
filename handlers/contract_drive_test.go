package handlers_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/mailsink"
	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// fullMail is a sink that takes no mode.
type fullMail struct{}

func (fullMail) Messages() []mailsink.Message { return []mailsink.Message{} }
func (fullMail) SetMode(int) error            { return errors.New("the disk is full") }

// everything is a listener with every route that there is, on the pool, and a token for it.
func everything(t testing.TB, listener string, pool *pgxpool.Pool, token string, change ...func(*handlers.Config)) *driver {
	t.Helper()
	cfg := handlers.Config{
		Pool: pool, Logger: slog.New(slog.DiscardHandler), StripeWebhookSecrets: []string{webhookSecret}, PasswordHashes: 1,
		Dev: &handlers.DevTools{Mail: fullMail{}, Payments: payments.NewSandbox(pool)},
	}
	for _, f := range change {
		f(&cfg)
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "a_number", Help: "So that there is one."}))
	if listener == "api" {
		return &driver{t: t, listener: listener, token: token, echo: watch(t, listener, handlers.NewAPI(cfg))}
	}
	operator := outbox.NewOperator(pool, idleJobs{}, "", nil)
	return &driver{t: t, listener: listener, token: token, echo: watch(t, listener, handlers.NewAdmin(handlers.AdminConfig{
		Config: cfg, Operator: operator, Tokens: map[string]string{token: "anna"}, Webhooks: webhooks.New(pool, operator, "", webhooks.Options{}),
		Metrics: promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}),
		River:   http.NotFoundHandler(),
	}))}
}

// driver asks a listener for operations of the document.
type driver struct {
	t        testing.TB
	listener string
	echo     *echo.Echo
	token    string
	path     map[string]string // what parts of paths are, where there is something
}

// samples are values for the parameters of paths: of things that there are not.
var samples = map[string]string{"id": "4711", "cart_id": uuid.NewString(), "order_id": uuid.NewString(), "sku": "moka-pot", "name": "nobody", "correlation_id": "nobody"}

func (d *driver) pathOf(o *operation) string {
	path := o.path
	for part, is := range d.path {
		path = strings.ReplaceAll(path, part, is)
	}
	for name, value := range samples {
		if o.path == "/admin/events/{id}" {
			value = samples["order_id"]
		}
		path = strings.ReplaceAll(path, "{"+name+"}", value)
	}
	return path
}

// ask is a request for the operation; its body is the document's example, and change may make it another one.
func (d *driver) ask(o *operation, change ...func(r *http.Request)) *httptest.ResponseRecorder {
	d.t.Helper()
	body := ""
	if example := spec().example(o); example != nil {
		body = encodeJSON(d.t, example)
	}
	r := httptest.NewRequestWithContext(d.t.Context(), o.method, d.pathOf(o), strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if o.authenticated {
		r.Header.Set("Authorization", "Bearer "+d.token)
	}
	if o.path == "/v1/webhooks/stripe" {
		const event = `{"id":"evt_1","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"pi_1","status":"succeeded","amount":1299,"currency":"eur"}}}`
		withBody(event)(r)
		r.Header.Set("Stripe-Signature", signed(event, webhookSecret, time.Now()))
	}
	for _, f := range change {
		f(r)
	}
	a := httptest.NewRecorder()
	d.echo.ServeHTTP(a, r)
	return a
}

func withBody(body string) func(*http.Request) {
	return func(r *http.Request) {
		other := httptest.NewRequestWithContext(r.Context(), r.Method, "/", strings.NewReader(body))
		r.Body, r.ContentLength = other.Body, other.ContentLength
		r.Header.Set("Content-Type", "application/json")
	}
}

func withQuery(query string) func(*http.Request) {
	return func(r *http.Request) { r.URL.RawQuery = query }
}

// stalled is a body that does not come.
type stalled struct{}

func (stalled) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }
func (stalled) Close() error             { return nil }

// has says whether the operation documents the status.
func (o *operation) has(status int) bool { return o.responses[status].object != nil }

// Each operation is asked in every way that is refused whatever the state is. What it answers is in the document, or the test fails by
// watch; here is held that the documented refusals are those.
func TestContractDrivesEveryRefusal(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for _, d := range []*driver{everything(t, "api", s.pool, s.customer().token), everything(t, "admin", s.pool, operatorToken)} {
		for _, o := range spec().sorted(d.listener) {
			expect := func(status int, change ...func(*http.Request)) {
				t.Helper()
				if a := d.ask(o, change...); a.Code != status {
					t.Errorf("%s: %d and not %d: %s", o.name, a.Code, status, a.Body)
				}
			}
			if o.authenticated {
				for _, token := range []string{"", "Bearer", "Bearer wrong", "Basic " + d.token} {
					expect(401, func(r *http.Request) { r.Header.Set("Authorization", token) })
				}
			}
			if o.body.object != nil {
				expect(408, func(r *http.Request) { r.Body, r.ContentLength = stalled{}, -1 })
				expect(413, withBody(`{"x":"`+strings.Repeat("x", 64<<10)+`"}`))
			}
			if o.has(415) {
				expect(415, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") })
				expect(415, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") })
				expect(400, withBody(`{"x":`))
				expect(400, withBody(`{"x":1,"x":2}`))
				expect(422, withBody(`{"no_such_field":1}`))
				expect(422, withBody(`[]`))
			} else if o.has(422) {
				expect(400, withQuery("%zz"))
				expect(422, withQuery("no_such_parameter=1"))
			}
			if o.has(404) {
				change := func(*http.Request) {}
				if strings.HasSuffix(o.path, "/backfills") {
					change = func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/admin/consumers/\xff/backfills", "" }
				}
				expect(404, change)
			}
		}
	}
}

// Of a listener whose database is away, and of one whose database has lost its tables, each operation that needs it says so.
func TestContractDrivesEveryFailure(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	token := s.customer().token
	config := testdb.Pool(t).Config()
	config.ConnConfig.Host, config.ConnConfig.Port = "127.0.0.1", 1
	away, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(away.Close)
	s.exec(`drop schema public cascade; create schema public; drop schema sandbox cascade`)
	for _, listener := range []string{"api", "admin"} {
		for status, pool := range map[int]*pgxpool.Pool{503: away, 500: s.pool} {
			d := everything(t, listener, pool, token)
			for _, o := range spec().sorted(listener) {
				if o.path == "/readyz" { // it asks whoever it was told to
					continue
				}
				a := d.ask(o)
				if o.has(status) != (a.Code == status) {
					t.Errorf("%s: %d, and %d is documented: %v: %s", o.name, a.Code, status, o.has(status), a.Body)
				}
			}
		}
	}
}

// What a path has no method for is a 405 that says which it has; OPTIONS is the same as an answer.
func TestContractMethods(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
	for _, d := range []*driver{everything(t, "api", s.pool, s.customer().token), everything(t, "admin", s.pool, operatorToken)} {
		for _, o := range spec().sorted(d.listener) {
			for _, method := range append(methods, "OPTIONS") {
				if _, there := spec().operations[method+" "+o.path]; there || method+" "+o.path == "GET /admin/dlq/replay" {
					continue // or the letter that has no number
				}
				a := d.ask(o, func(r *http.Request) { r.Method = method; r.Header.Set("Authorization", "Bearer "+d.token) })
				want := 405
				if method == "OPTIONS" {
					want = 204
				}
				require.Equal(t, want, a.Code, "%s %s: %s", method, o.path, a.Body)
				allowed := strings.Split(a.Header().Get("Allow"), ", ")
				for _, m := range methods {
					_, there := spec().operations[m+" "+o.path]
					require.Equal(t, there, slices.Contains(allowed, m), "%s %s allows %s", method, o.path, allowed)
				}
			}
		}
	}
}

// What is left of the answers: those of the listeners themselves.
func TestContractOfTheListeners(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(cfg *handlers.Config) { cfg.Ready = func(context.Context) error { return nil } })
	for _, d := range []*driver{everything(t, "api", s.pool, ""), everything(t, "admin", s.pool, operatorToken)} {
		for _, o := range spec().sorted(d.listener) {
			if o.method == "GET" && !strings.HasPrefix(o.path, "/v1/") && !strings.HasPrefix(o.path, "/admin/") {
				require.Equal(t, 200, d.ask(o).Code, o.name)
			}
		}
	}
}
