package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v85/webhook"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/handlers/pages"
	"github.com/pgoutbox/pgoutbox/internal/mailsink"
	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// canaries are texts that can be told from all others, and where each was planted.
type canaries struct{ planted map[string]string }

var (
	// personal are canaries that may be nowhere but in the users' own rows.
	personal = regexp.MustCompile(`(?i)zqx[0-9]+xqz`)
	// spoken are those that operators wrote, to be read by operators, and what an event holds; they may be neither in a log nor in a span or metric.
	spoken = regexp.MustCompile(`(?i)zq[xr][0-9]+[xr]qz`)
)

// refusedName is how a problem names a field or a parameter that a client made up: by its name, and to that client only.
var refusedName = regexp.MustCompile(`[/?]zqx[0-9]+xqz`)

func (c *canaries) plant(where string) string {
	text := fmt.Sprintf("zqx%04dxqz", len(c.planted))
	c.planted[text] = where
	return text
}

func (c *canaries) say(where string) string {
	text := fmt.Sprintf("zqr%04drqz", len(c.planted))
	c.planted[text] = where
	return text
}

// absent requires that none of the canaries is in a text.
func (c *canaries) absent(t *testing.T, what *regexp.Regexp, where, text string) {
	t.Helper()
	if found := what.FindString(text); found != "" {
		at := strings.Index(text, found)
		t.Errorf("%s holds what was planted in %s: …%s…", where, c.planted[strings.ToLower(found)], text[max(0, at-200):min(len(text), at+200)])
	}
}

// canaryFields are the fields of the bodies of all routes that read one. Where a canary is one that can be taken it is.
var canaryFields = map[string][]string{
	"POST /v1/signup":                         {"email", "password", "name"},
	"POST /v1/sessions":                       {"email", "password"},
	"POST /v1/carts":                          {},
	"POST /v1/carts/:cart_id/items":           {"sku", "quantity"},
	"POST /v1/carts/:cart_id/checkout":        {"payment_method"},
	"POST /v1/webhooks/stripe":                {"id", "object", "type", "data"},
	"DELETE /v1/sessions/current":             {},
	"DELETE /v1/carts/:cart_id/items/:sku":    {},
	"PUT /dev/mail/mode":                      {"smtp_code"},
	"PUT /dev/payments/mode":                  {"outage"},
	"POST /admin/dlq/:id/rehearse":            {"data", "reason"},
	"POST /admin/dlq/:id/replay":              {"data", "reason", "force"},
	"POST /admin/dlq/:id/dismiss":             {"reason"},
	"POST /admin/dlq/:id/redact":              {"pointers", "errors", "reasons", "reason"},
	"POST /admin/dlq/replay":                  {"filter", "rate", "canary", "reason", "force"},
	"POST /admin/search":                      {"query", "limit", "cursor"},
	"POST /admin/operations/:id/stop":         {"reason"},
	"POST /admin/consumers/:name/pause":       {"reason"},
	"POST /admin/consumers/:name/resume":      {"reason"},
	"POST /admin/consumers/:name/remove":      {"reason", "force"},
	"POST /admin/consumers/:name/unsubscribe": {"pattern", "reason"},
	"POST /admin/consumers/:name/backfill":    {"from", "until", "appends", "reason", "force"},
	"POST /admin/backfills/:id/stop":          {"reason"},
	"POST /admin/webhooks":                    {"name", "url", "types", "secret", "from", "reason"},
	"PATCH /admin/webhooks/:name":             {"url", "types", "reason"},
	"DELETE /admin/webhooks/:name":            {"reason", "force"},
	"POST /admin/webhooks/:name/enable":       {"reason"},
	"POST /admin/webhooks/:name/disable":      {"reason"},
	"POST /admin/webhooks/:name/rotate":       {"reason"},
	"POST /admin/webhooks/:name/test":         {"reason"},
	"POST /admin/webhooks/:name/replay":       {"since", "reason"},
}

type nothing struct{}

func (nothing) Messages() []mailsink.Message                       { return nil }
func (nothing) SetMode(int) error                                  { return nil }
func (nothing) SetOutage(context.Context, bool) error              { return nil }
func (nothing) Charges(context.Context) ([]payments.Charge, error) { return nil, nil }

// routesOf are the routes of both listeners, by their method and pattern.
func routesOf() (api, admin [][2]string) {
	cfg := handlers.Config{Logger: slog.New(slog.DiscardHandler), StripeWebhookSecrets: []string{"x"}, Dev: &handlers.DevTools{Mail: nothing{}, Payments: nothing{}}}
	for _, r := range handlers.NewAPI(cfg).Routes() {
		api = append(api, [2]string{r.Method, r.Path})
	}
	cfg.Dev = nil
	for _, r := range handlers.NewAdmin(handlers.AdminConfig{
		Config: cfg, Tokens: map[string]string{"a token of anna's": "anna"}, Metrics: http.NotFoundHandler(), River: http.NotFoundHandler(),
		Webhooks: webhooks.New(nil, nil, "", webhooks.Options{}),
	}).Routes() {
		admin = append(admin, [2]string{r.Method, r.Path})
	}
	return api, admin
}

var segment = regexp.MustCompile(`:[a-z_]+`)

// plantEverywhere sends canaries in each field of each body, each segment of a path, in queries and headers, to each route. What they are refused
// with is looked at here already: no answer repeats one.
func plantEverywhere(t *testing.T, p *process, c *canaries, bearer string) {
	t.Helper()
	api, admin := routesOf()
	for i, r := range slices.Concat(api, admin) {
		route, base, authorization := r[0]+" "+r[1], p.api, bearer
		if i >= len(api) {
			base, authorization = p.admin, "Bearer "+p.token
		}
		if strings.HasPrefix(r[1], pages.Root) || strings.HasPrefix(r[1], pages.River) {
			authorization = ""
		}
		path := segment.ReplaceAllStringFunc(r[1], func(name string) string { return c.plant(route + ", " + name) })
		path = strings.Replace(path, "*", c.plant(route+", *"), 1)
		send := func(what, path, body string, header ...string) {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), r[0], base+path, strings.NewReader(body))
			require.NoError(t, err)
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Authorization", authorization)
			for i := 0; i < len(header); i += 2 {
				req.Header.Set(header[i], header[i+1])
			}
			client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			res, err := client.Do(req)
			require.NoError(t, err)
			raw := readAll(t, res)
			require.Less(t, res.StatusCode, 500, raw)
			if !strings.HasPrefix(r[1], pages.Root) && r[1] != "/v1/account" { // the login leads back to the page that was asked for, and a customer sees who they are
				c.absent(t, personal, "the answer to "+what+" of "+route, refusedName.ReplaceAllString(raw, ""))
			}
		}
		header := func(name string) string { return c.plant(route + ", header " + name) }
		send("a path", path, "")
		send("a query", path+"?"+c.plant(route+", a parameter's name")+"="+c.plant(route+", a parameter")+"&limit="+c.plant(route+", limit")+"&error="+c.plant(route+", error"), "")
		send("headers", path, "", "Idempotency-Key", header("key"), "Prefer", "wait="+header("prefer"), "X-Correlation-ID", header("correlation")+"@example.com", "User-Agent", header("agent"),
			"Referer", "http://x/"+header("referer"), "X-Forwarded-For", header("for"), "Cookie", "outbox_session="+header("cookie"), "traceparent", header("traceparent"), "Accept", header("accept"))
		send("a trace", path, "", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate", "a="+header("tracestate"), "baggage", "a="+header("baggage"))
		send("a token", path, "", "Authorization", "Bearer "+header("authorization"))
		if strings.HasPrefix(r[1], pages.Root) || strings.HasPrefix(r[1], pages.River) || r[0] == http.MethodGet {
			continue
		}
		fields, known := canaryFields[route]
		require.True(t, known, "%s is to be in the table above, with its fields", route)
		for _, field := range append(fields, "unknown") {
			name := route + ", " + field
			for _, value := range []string{
				`"` + c.plant(name) + `"`, `"` + c.plant(name) + `@canary.example"`, `["` + c.plant(name) + `"]`, `{"` + c.plant(name) + `":"` + c.plant(name) + `"}`, `"` + c.plant(name) + `\u0000"`, `"` + c.plant(name) + "\xff\"", `"` + c.plant(name),
			} {
				if strings.HasPrefix(r[1], "/admin") && (field == "reason" || field == "data" || field == "query") && utf8.ValidString(value) && !strings.ContainsAny(value, `[{\`) {
					continue // these are for people to read: see below
				}
				send("a field", path, `{"`+field+`":`+value+`}`)
			}
		}
		send("a field's name", path, `{"`+c.plant(route+", a name")+`":1}`)
		send("no JSON", path, c.plant(route+", no JSON"))
	}
	event := `{"id":"` + c.plant("a signed event's id") + `","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"` + c.plant("an intent's id") +
		`","status":"requires_payment_method","amount":1,"currency":"eur","last_payment_error":{"message":"` + c.plant("a provider's message") + `"}}}}`
	signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(event), Secret: canarySecret, Timestamp: time.Now()})
	a, err := call(t.Context(), "POST", p.api+"/v1/webhooks/stripe", json.RawMessage(event), "Stripe-Signature", signed.Header)
	require.NoError(t, err)
	require.Less(t, a.status, 500, a.raw)
}

const canarySecret = "whsec_of_the_canaries"

// Addresses, passwords and names that were planted in every field of every body, and in paths, queries and headers, are in no log, span, metric,
// job, list or table but the users' own, also when mails are refused with the address in the refusal, payments fail and events die.
func TestCanariesAreNowhere(t *testing.T) {
	t.Parallel()
	c := &canaries{map[string]string{}}
	spans, server := newSpanCollector(t), newRefusingServer(t)
	p := startDev(t, dataDir(t), "OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT="+spans.url, "OUTBOX_LOG_DELIVERIES=all", "OUTBOX_RATE_LIMITS=off",
		"OUTBOX_MAX_ATTEMPTS=2", "OUTBOX_RETRY_BASE=20ms", "SMTP_URL="+server.url, "STRIPE_WEBHOOK_SECRET="+canarySecret)
	address, password := c.plant("the customer's address")+"@canary.example", c.plant("the customer's password")
	person := map[string]any{"email": address, "password": password, "name": c.plant("the customer's name")}
	signup := p.call("POST", "/v1/signup", person, "Idempotency-Key", c.plant("a key"))
	require.Equal(t, 201, signup.status, signup.raw)
	require.Equal(t, 409, p.call("POST", "/v1/signup", person).status)
	session := p.call("POST", "/v1/sessions", map[string]any{"email": address, "password": password})
	require.Equal(t, 201, session.status, session.raw)
	bearer := "Bearer " + session.text("token")
	require.Equal(t, 401, p.call("POST", "/v1/sessions", map[string]any{"email": address, "password": c.plant("a wrong password")}).status)

	// The payment fails until its event is dead, is replayed, and then the receipt is refused as the welcome was.
	require.Equal(t, 200, p.call("PUT", "/dev/payments/mode", map[string]any{"outage": true}).status)
	customer := &customer{t, p, bearer}
	order := customer.checkout(c.say("a payment method"), "filter-beans")
	letterOf := func(consumer string) (id string) {
		p.until("a dead letter of "+consumer, func() bool {
			items, _ := p.call("GET", "/admin/dlq?state=dead&consumer="+consumer, nil).body["items"].([]any)
			if len(items) == 1 {
				id = fmt.Sprint(items[0].(map[string]any)["id"])
			}
			return len(items) == 1
		})
		return id
	}
	welcome, payment := letterOf("welcome-email"), letterOf("payments")
	require.Contains(t, server.refused(), address, "the server has told the address in its refusal")
	require.Equal(t, 200, p.call("PUT", "/dev/payments/mode", map[string]any{"outage": false}).status)
	require.Equal(t, 202, p.call("POST", "/admin/dlq/"+payment+"/replay", map[string]any{"reason": c.say("a reason")}).status)
	p.until("the order has an end", func() bool { return customer.order(order) != "processing" })
	require.Equal(t, 422, p.call("POST", "/admin/dlq/"+welcome+"/replay", map[string]any{"data": map[string]any{"user_id": c.say("edited data")}, "reason": c.say("a reason")}).status)
	require.Equal(t, 200, p.call("POST", "/admin/consumers/billing/pause", map[string]any{"reason": c.say("a reason")}).status)
	require.Equal(t, 200, p.call("POST", "/admin/consumers/billing/resume", map[string]any{"reason": c.say("a reason")}).status)
	made := p.call("POST", "/admin/webhooks", map[string]any{
		"name": "crm", "url": "https://crm.invalid/hooks?token=" + c.plant("an endpoint's token"), "types": []string{"*"}, "from": "beginning", "reason": c.say("a reason"),
	})
	require.Equal(t, 201, made.status, made.raw)
	c.absent(t, personal, "the answer to a new endpoint", made.raw)
	p.until("the endpoint fails", func() bool { return p.call("GET", "/admin/webhooks/crm", nil).text("state") == "failing" })
	plantEverywhere(t, p, c, bearer)

	pool := p.pool()
	lookEverywhere(t, p, c, pool.Config().ConnString(), address)
	conn, err := pgx.Connect(t.Context(), p.database)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), `select format('%I.%I', schemaname, tablename) from pg_tables where schemaname not in ('pg_catalog', 'information_schema') and tablename not in ('users', 'webhooks')`)
	require.NoError(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Contains(t, tables, "public.river_job")
	for _, table := range tables {
		var all string
		require.NoError(t, conn.QueryRow(t.Context(), `select coalesce(string_agg(t::text, E'\n'), '') from `+table+` t`).Scan(&all), table)
		c.absent(t, personal, "the table "+table, all)
	}
	var kept bool
	require.NoError(t, conn.QueryRow(t.Context(), `select exists (select from users where email = $1)`, address).Scan(&kept))
	require.True(t, kept, "the search finds what is there")
	pool.Close()
	_ = conn.Close(context.Background())

	p.stop()
	said, err := os.ReadFile(p.log.Name())
	require.NoError(t, err)
	c.absent(t, spoken, "the log", string(said))
	for _, secret := range []string{session.text("token"), p.token, canarySecret, made.text("secret")} {
		require.NotContains(t, string(said), secret)
		require.False(t, spans.contains(secret))
	}
	spans.mu.Lock()
	defer spans.mu.Unlock()
	c.absent(t, spoken, "the spans", string(spans.raw))
	require.NotEmpty(t, spans.raw)
}

// lookEverywhere looks at what the operators' listener shows: every route that is read, each with whatever there is to fill its path.
func lookEverywhere(t *testing.T, p *process, c *canaries, database, address string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	fill := map[string][]string{}
	for name, query := range map[string]string{
		"dlq/:id": `select id::text from discarded_jobs`, "letters/:id": `select id::text from discarded_jobs`, "events/:id": `select id::text from events`,
		"trace/:correlation_id": `select distinct correlation_id from events`, "consumers/:name": `select name from consumers`, "operations/:id": `select id::text from operations`,
		"backfills/:id": `select id::text from runs`, "river/*": `select unnest(array['', 'api/queues', 'api/states', 'api/jobs?state=completed', 'api/jobs?state=discarded', 'api/jobs?state=available'])`,
		"static/:version": `select 'x'`, "docs/:version": `select 'x'`, "webhooks/:name": `select substr(consumer, length('webhook-') + 1) from webhooks`,
	} {
		rows, err := conn.Query(t.Context(), query)
		require.NoError(t, err, name)
		fill[name], err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err, name)
	}
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client := &http.Client{Jar: jar}
	in, err := client.PostForm(p.admin+pages.Root+"/login", url.Values{"token": {p.token}})
	require.NoError(t, err)
	require.NoError(t, in.Body.Close())
	require.Equal(t, 200, in.StatusCode)
	parameter := regexp.MustCompile(`([a-z]+)/(:[a-z_]+|\*)`)
	_, admin := routesOf()
	looked := 0
	for _, r := range admin {
		if r[0] != http.MethodGet {
			continue
		}
		paths := []string{r[1]}
		if found := parameter.FindStringSubmatch(r[1]); found != nil {
			values, known := fill[found[1]+"/"+found[2]]
			require.True(t, known, "%s: what is looked at in its place?", r[1])
			paths = nil
			for _, v := range values {
				paths = append(paths, strings.Replace(r[1], found[2], v, 1))
			}
		}
		for _, path := range paths {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.admin+path, nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer "+p.token)
			res, err := client.Do(req)
			require.NoError(t, err)
			shown := readAll(t, res)
			require.Less(t, res.StatusCode, 500, "%s: %s", path, shown)
			c.absent(t, personal, path, shown)
			if r[1] == "/metrics" {
				c.absent(t, spoken, path, shown)
			}
			looked++
		}
	}
	require.Greater(t, looked, 40)
	for _, query := range []string{address, "billing"} {
		found := p.call("POST", "/admin/search", map[string]any{"query": query})
		require.Equal(t, 200, found.status, found.raw)
		c.absent(t, personal, "what a search finds", found.raw)
	}
}
