package handlers_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/handlers/pages"
	"github.com/pgoutbox/pgoutbox/internal/mailsink"
	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// notYours are fields that tables, events and answers have, and that no request may set.
var notYours = []string{
	"id", "user_id", "owner", "owner_id", "customer_id", "event_id", "event", "type", "key", "correlation_id", "causation_id", "status", "state", "role", "admin", "plan", "trial_ends_at",
	"amount", "currency", "price", "unit_price", "total", "discount", "stock", "reserved", "stock_state", "cart_version", "version", "order_id", "lines", "items", "intent_id", "failure_reason", "settled_at",
	"password_hash", "signup_event_id", "created_at", "occurred_at", "schema_version", "source", "pos", "seq", "lane", "token", "job_id", "attempts", "actor", "processed_at", "__proto__",
}

// takes are good bodies of all routes that read one, by listener. A route that is not here is none that a test knows.
var takes = map[string]string{
	"POST /v1/signup":                  `{"email":"ada@example.com","password":"correct horse","name":"Ada"}`,
	"POST /v1/sessions":                `{"email":"ada@example.com","password":"correct horse"}`,
	"POST /v1/carts":                   `{}`,
	"POST /v1/carts/:cart_id/items":    `{"sku":"moka-pot","quantity":1}`,
	"POST /v1/carts/:cart_id/checkout": `{"payment_method":"pm_card_visa"}`,
	"PUT /dev/mail/mode":               `{"smtp_code":250}`,
	"PUT /dev/payments/mode":           `{"outage":false}`,

	"POST /admin/dlq/:id/rehearse":            `{}`,
	"POST /admin/dlq/:id/replay":              `{"reason":"r"}`,
	"POST /admin/dlq/:id/dismiss":             `{"reason":"r"}`,
	"POST /admin/dlq/:id/redact":              `{"errors":true,"reason":"r"}`,
	"POST /admin/dlq/replay":                  `{"filter":{},"reason":"r"}`,
	"POST /admin/search":                      `{"query":"x"}`,
	"POST /admin/operations/:id/stop":         `{"reason":"r"}`,
	"POST /admin/consumers/:name/pause":       `{"reason":"r"}`,
	"POST /admin/consumers/:name/resume":      `{"reason":"r"}`,
	"POST /admin/consumers/:name/remove":      `{"reason":"r","force":true}`,
	"POST /admin/consumers/:name/unsubscribe": `{"pattern":"user.*","reason":"r"}`,
	"POST /admin/consumers/:name/backfill":    `{"from":"beginning","reason":"r"}`,
	"POST /admin/backfills/:id/stop":          `{"reason":"r"}`,
	"POST /admin/webhooks":                    `{"name":"crm","url":"https://crm.example/","types":["*"]}`,
	"PATCH /admin/webhooks/:name":             `{"types":["*"]}`,
	"DELETE /admin/webhooks/:name":            `{"reason":"r","force":true}`,
	"POST /admin/webhooks/:name/enable":       `{"reason":"r"}`,
	"POST /admin/webhooks/:name/disable":      `{"reason":"r"}`,
	"POST /admin/webhooks/:name/rotate":       `{"reason":"r"}`,
	"POST /admin/webhooks/:name/test":         `{"reason":"r"}`,
	"POST /admin/webhooks/:name/replay":       `{"since":"2026-01-31T12:00:00Z","reason":"r"}`,
	"POST /admin/river/api/jobs/cancel":       `{"ids":["1"]}`,
	"POST /admin/river/api/jobs/delete":       `{"ids":["1"]}`,
	"POST /admin/river/api/jobs/retry":        `{"ids":["1"]}`,
}

// takesNone are the routes that change something and look at no body, each for its reason.
var takesNone = map[string]string{
	"DELETE /v1/sessions/current":              "the session is in the header",
	"DELETE /v1/carts/:cart_id/items/:sku":     "the line is in the path",
	"POST /v1/webhooks/stripe":                 "the body is the provider's, signed, and has what fields it likes",
	"PUT /admin/river/api/queues/:name/pause":  "River's UI sends none",
	"PUT /admin/river/api/queues/:name/resume": "River's UI sends none",
	"PATCH /admin/river/api/queues/:name":      "it is refused whatever it says",
}

// changing are the routes of both listeners that can change something. The pages' take forms, of which they read fields by name.
func changing(t *testing.T) (found []string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cfg := handlers.Config{Logger: log, StripeWebhookSecrets: []string{webhookSecret}, Dev: &handlers.DevTools{Mail: noMail{}, Payments: noPayments{}}}
	for _, e := range []*echo.Echo{
		handlers.NewAPI(cfg),
		handlers.NewAdmin(handlers.AdminConfig{
			Config: handlers.Config{Logger: log}, Tokens: map[string]string{operatorToken: "anna"}, River: http.NotFoundHandler(),
			Webhooks: webhooks.New(nil, nil, "", webhooks.Options{}),
		}),
	} {
		for _, r := range e.Routes() {
			if r.Method != http.MethodGet && !strings.HasPrefix(r.Path, pages.Root) {
				found = append(found, r.Method+" "+r.Path)
			}
		}
	}
	slices.Sort(found)
	return found
}

type noMail struct{}

func (noMail) Messages() []mailsink.Message { return nil }
func (noMail) SetMode(int) error            { return nil }

type noPayments struct{}

func (noPayments) SetOutage(context.Context, bool) error              { return nil }
func (noPayments) Charges(context.Context) ([]payments.Charge, error) { return nil, nil }

func TestEveryChangingRouteIsKnown(t *testing.T) {
	t.Parallel()
	var known []string
	for _, of := range []map[string]string{takes, takesNone} {
		for route := range of {
			known = append(known, route)
		}
	}
	require.ElementsMatch(t, changing(t), known, "a route is to be in one of the tables above, so that the tests below are of it too")
}

// No client sets a price, an owner, a state or a field of an event: a field that is not the request's is refused by name, on every route, and
// nothing is done.
func TestNobodySetsWhatIsNotTheirs(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(cfg *handlers.Config) { cfg.Dev = &handlers.DevTools{Mail: noMail{}, Payments: noPayments{}} })
	c := s.customer()
	cart := c.cart("moka-pot", 1)
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	o.clear()
	letter, _ := o.deadLetter(`{"user_id":"x"}`)
	require.EqualValues(t, 1, letter)
	kept := func() (shop []int64, office string) {
		require.NoError(t, o.pool.QueryRow(t.Context(), keptByOffice).Scan(&office))
		return value[[]int64](s, keptByShop), office
	}
	shopBefore, officeBefore := kept()
	for route, good := range takes {
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer(":cart_id", cart, ":id", "1", ":name", "billing").Replace(path)
		if strings.HasPrefix(path, pages.River) {
			continue // behind the pages' login: TestRiverUIRefusesWhatCouldDoHarm
		}
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(good), &fields), route)
		for names := range slices.Chunk(slices.Sorted(slices.Values(notYours)), 20) { // so many an answer names
			with, want := maps.Clone(fields), []string{}
			for _, name := range names {
				with[name] = "1"
				want = append(want, "/"+name)
			}
			var a answer
			if strings.HasPrefix(path, "/admin") {
				var err error
				a, err = (&shop{t: t, url: o.url}).try(t.Context(), method, path, with, "Authorization", "Bearer "+operatorToken)
				require.NoError(t, err)
			} else {
				a = c.call(method, path, with)
			}
			require.Equal(t, 422, a.status, "%s with %v: %s", route, names, a.raw)
			require.Equal(t, want, a.pointers(), route)
		}
	}
	shopAfter, officeAfter := kept()
	require.Equal(t, shopBefore, shopAfter)
	require.Equal(t, officeBefore, officeAfter)
}

// An object of another customer is as unknown as one that is nobody's, on every route that names one, and nothing happens to it.
func TestForeignObjectsAreUnknown(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	owner, other := s.customer(), s.customer()
	order := owner.order()
	cart := owner.cart("moka-pot", 1)
	theirs := map[string]string{":cart_id": cart, ":order_id": order}
	before := value[[]int64](s, keptByShop)
	asked := 0
	for _, r := range handlers.NewAPI(handlers.Config{Logger: slog.New(slog.DiscardHandler)}).Routes() {
		var object string
		for segment := range strings.SplitSeq(r.Path, "/") {
			if strings.HasPrefix(segment, ":") && segment != ":sku" && !strings.HasPrefix(r.Path, "/docs/") {
				require.Contains(t, theirs, segment, "%s names an object that this test has none of", r.Path)
				object = segment
			}
		}
		if object == "" {
			continue
		}
		asked++
		path := strings.Replace(r.Path, ":sku", "moka-pot", 1)
		ask := func(id string, header ...string) (problem map[string]any) {
			var body any
			if good := takes[r.Method+" "+r.Path]; good != "" {
				body = good
			}
			a := other.call(r.Method, strings.Replace(path, object, id, 1), body, header...)
			s.problem(a, 404, "not-found")
			delete(a.body, "correlation_id")
			return a.body
		}
		unknown := ask(uuid.NewString())
		require.Equal(t, unknown, ask(theirs[object]), r.Path)
		require.Equal(t, unknown, ask(theirs[object], key, "k"), r.Path)
		require.Equal(t, unknown, ask(theirs[object], "Prefer", "wait=1"), r.Path)
	}
	require.GreaterOrEqual(t, asked, 5)
	require.Equal(t, before, value[[]int64](s, keptByShop))
	require.NotContains(t, other.call("GET", "/v1/orders", nil).raw, order)
	require.Contains(t, owner.call("GET", "/v1/orders", nil).raw, order)
}
