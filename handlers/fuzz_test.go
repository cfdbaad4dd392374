package handlers_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// apiRoutes are the customers' routes, each with {} where an input's segment goes, and {cart} for a cart that is open.
var apiRoutes = []string{
	"POST /v1/signup", "POST /v1/sessions", "POST /v1/carts", "POST /v1/carts/{cart}/items", "POST /v1/carts/{cart}/checkout",
	"POST /v1/carts/{}/items", "POST /v1/carts/{}/checkout", "DELETE /v1/carts/{cart}/items/{}", "GET /v1/carts/{}", "GET /v1/orders/{}",
	"GET /v1/orders?{}", "GET /v1/products?{}", "GET /v1/account", "GET /v1/{}", "POST /v1/webhooks/stripe",
}

const keptByShop = `select array[(select count(*) from users), (select count(*) from carts), (select coalesce(sum(version), 0) from carts), (select count(*) from cart_items),
	(select count(*) from orders), (select coalesce(sum(reserved), 0) from products), (select count(*) from idempotency_keys), (select count(*) from outbox),
	(select count(*) from sessions), (select count(*) from payments), (select count(*) from processed_events)]::bigint[]`

// answered requires an answer that every client can read: of a refusal, a problem that says what is wrong, and never ours.
func answered(t *testing.T, a answer) {
	t.Helper()
	require.Less(t, a.status, 500, a.raw)
	require.True(t, utf8.ValidString(a.raw))
	require.True(t, outbox.ValidCorrelationID(a.header.Get("X-Correlation-ID")))
	if a.status < 400 {
		require.True(t, a.status == 204 || json.Valid([]byte(a.raw)), a.raw)
		return
	}
	(&shop{t: t}).problem(a, a.status, a.text("type"))
	require.True(t, a.text("detail") != "" || len(a.pointers()) > 0, a.raw)
	if a.text("type") == "validation" {
		require.NotEmpty(t, a.pointers(), a.raw)
	}
}

// sendable reports whether a client can put the value into a header.
func sendable(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// target fills a route's place. It reports whether a client can ask for it.
func target(route, segment string) (method, path string, ok bool) {
	method, path, _ = strings.Cut(strings.Replace(route, "{}", segment, 1), " ")
	u, err := url.ParseRequestURI(path)
	return method, path, err == nil && u.Host == "" && !strings.ContainsAny(path, " #") && !strings.HasPrefix(path, "//")
}

// FuzzAPI: whatever is asked of the customers' routes is done, and then the same again under the same key, or refused with a
// problem that says why; what is refused has left nothing.
func FuzzAPI(f *testing.F) {
	bodies := []string{
		`{"email":"ada@example.com","password":"correct horse","name":"Ada"}`, `{"email":"ada@example.com","password":"correct horse"}`, `{}`, `{"sku":"filter-beans","quantity":1}`,
		`{"payment_method":"pm_card_visa"}`,
	}
	for i := range apiRoutes {
		f.Add(uint8(i), "x", []byte(bodies[min(i, 4)]), "application/json", "key", "corr-1")
		f.Add(uint8(i), "%00", []byte(`{"sku":"\u0000"}`), "application/json", `"key`, "")
		f.Add(uint8(i), "limit=%zz", []byte("\xff"), "text/plain", "", "\xff")
		f.Add(uint8(i), "%FF%2e", []byte(bodies[min(i, 4)]), "application/json;charset=utf-8", `"a\"b"`, strings.Repeat("c", 129))
		f.Add(uint8(i), uuid.NewString(), []byte(bodies[3]+"}"), "application/json", "a", "..")
	}
	f.Add(uint8(10), "cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA&limit=1", []byte{}, "", "", "c")
	f.Add(uint8(11), "cursor="+strings.Repeat("x", 300), []byte{}, "", "", "c")
	f.Add(uint8(0), "", []byte(`{"email":"a@b","password":"12345678","name":"`+strings.Repeat("ü", 200)+`"}`), "application/json", "k", "c")
	base := newShop(f, func(cfg *handlers.Config) { cfg.StripeWebhookSecrets = []string{webhookSecret} })
	who := base.customer()
	f.Fuzz(func(t *testing.T, route uint8, segment string, body []byte, contentType, idempotencyKey, correlation string) {
		s, c := *base, *who
		s.t, c.shop = t, &s
		pattern := apiRoutes[int(route)%len(apiRoutes)]
		if before, after, ok := strings.Cut(pattern, "{cart}"); ok {
			pattern = before + c.cart("filter-beans", 1) + after
		}
		method, path, ok := target(pattern, segment)
		if !ok || !sendable(contentType) || !sendable(idempotencyKey) || !sendable(correlation) {
			return
		}
		header := []string{"Content-Type", contentType, "X-Correlation-ID", correlation}
		if idempotencyKey != "" {
			header = append(header, key, idempotencyKey)
		}
		before := value[[]int64](&s, keptByShop)
		a := c.call(method, path, string(body), header...)
		answered(t, a)
		if outbox.ValidCorrelationID(correlation) {
			require.Equal(t, correlation, a.header.Get("X-Correlation-ID"))
		}
		after := value[[]int64](&s, keptByShop)
		if a.status >= 400 || method == http.MethodGet {
			require.Equal(t, before, after, a.raw)
			return
		}
		if idempotencyKey == "" || method != http.MethodPost || strings.HasPrefix(path, "/v1/sessions") {
			return
		}
		again := c.call(method, path, string(body), header...)
		require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
		require.Equal(t, a.raw, again.raw)
		require.Equal(t, a.status, again.status)
		require.Equal(t, after, value[[]int64](&s, keptByShop))
	})
}

// FuzzStripeWebhook: a body that the provider did not sign is refused, and so is one that it did and that is no event; an event settles
// the order, as far as it is one of ours.
func FuzzStripeWebhook(f *testing.F) {
	event := func(intent string) string {
		return `{"id":"evt_1","object":"event","type":"payment_intent.succeeded","data":{"object":` + intent + `}}`
	}
	for _, intent := range []string{
		`{"id":"pi_1","status":"succeeded","amount":1299,"currency":"eur"}`, `{"id":"pi_1","status":"succeeded","amount":1,"currency":"eur"}`,
		`{"id":"pi_1","status":"requires_payment_method","amount":1299,"currency":"eur","last_payment_error":{"decline_code":"a\u0000b"}}`,
		`{"id":"pi_\u0000","status":"succeeded","amount":1299,"currency":"eur"}`, `{"id":"pi_1","status":"succeeded","amount":1299,"currency":"\ud800"}`, `null`, `{"id":7}`,
		`{"id":"pi_1","status":"requires_payment_method","amount":1299,"currency":"eur","last_payment_error":{"decline_code":"` + strings.Repeat("d", 5000) + `"}}`,
	} {
		f.Add([]byte(event(intent)), "", true)
	}
	f.Add([]byte(`{"id":"evt_\u0000","object":"event","type":"payment_intent.canceled","data":{"object":{"id":"pi_1","status":"canceled","amount":1299,"currency":"eur"}}}`), "", true)
	f.Add([]byte(event(`{}`)), "t=1,v1=00", false)
	f.Add([]byte(event(`{}`)), "t=99999999999999999999,v1=zz,v0=", false)
	base := newShop(f, func(cfg *handlers.Config) { cfg.StripeWebhookSecrets = []string{webhookSecret} })
	base.customer().order()
	base.exec(`insert into payments (order_id, idempotency_key, intent_id, state, amount, currency)
		select id, checkout_event_id, 'pi_1', 'created', amount, currency from orders`)
	f.Fuzz(func(t *testing.T, body []byte, signature string, sign bool) {
		s := *base
		s.t = t
		s.exec(`update orders set status = 'processing', settled_at = null, failure_reason = null`)
		s.exec(`update payments set state = 'created', reason = null`)
		s.exec(`delete from processed_events`)
		if sign {
			signature = signed(string(body), webhookSecret, time.Now())
		}
		if !sendable(signature) {
			return
		}
		before := value[[]int64](&s, keptByShop)
		a := s.call("POST", "/v1/webhooks/stripe", string(body), "Stripe-Signature", signature)
		if a.status == 500 { // about money, and for somebody to look at: it stays until the provider gives up
			s.problem(a, 500, "contradiction")
		} else {
			answered(t, a)
		}
		after := value[[]int64](&s, keptByShop)
		switch {
		case a.status >= 400:
			require.Equal(t, before, after, a.raw)
			require.Equal(t, "processing", value[string](&s, `select status from orders`))
		case a.text("outcome") == "settled":
			require.True(t, sign)
			require.NotEqual(t, "processing", value[string](&s, `select status from orders`))
		default:
			require.True(t, sign)
			require.Contains(t, []string{"ignored", "already settled"}, a.text("outcome"))
		}
	})
}

var adminRoutes = []string{
	"GET /admin/dlq?{}", "GET /admin/dlq/{}", "POST /admin/dlq/{letter}/replay", "POST /admin/dlq/{letter}/dismiss", "POST /admin/dlq/{}/replay", "POST /admin/dlq/{}/dismiss",
	"GET /admin/events/{}", "GET /admin/trace/{}", "POST /admin/consumers/{}/pause", "POST /admin/consumers/{}/resume", "POST /admin/consumers/{}/remove",
	"POST /admin/consumers/{}/unsubscribe", "POST /admin/consumers/{}/backfill", "GET /admin/consumers/{}/backfills", "GET /admin/backfills/{}", "POST /admin/backfills/{}/stop",
	"GET /admin/{}",
	"POST /admin/dlq/{letter}/rehearse", "POST /admin/dlq/{}/rehearse", "POST /admin/dlq/replay", "GET /admin/operations/{}", "POST /admin/operations/{}/stop",
}

const keptByOffice = `select md5(concat((select string_agg(x::text, ';') from (select * from discarded_jobs order by id) as x), (select string_agg(x::text, ';') from holds as x),
	(select string_agg(x::text, ';') from event_edits as x), (select count(*) from audit), (select string_agg(x::text, ';') from operations as x), (select string_agg(x::text, ';') from consumers as x), (select count(*) from runs),
	(select string_agg(x::text, ';' order by consumer, pattern) from consumer_subscriptions as x), (select string_agg(pos::text, ';' order by lane) from cursors)))`

// clear leaves one consumer that has come past one event, which is not there yet.
func (o *office) clear() {
	o.t.Helper()
	_, err := o.pool.Exec(o.t.Context(), `
		delete from holds; delete from events; delete from discarded_jobs; delete from delivery_log; delete from event_edits; delete from retired_consumers;
		delete from consumers; delete from operations;
		insert into consumers (name, kind) values ('billing', 'tx');
		insert into consumer_subscriptions (consumer, pattern) values ('billing', 'user.*');
		insert into cursors (consumer, lane, pos) select 'billing', i, 1 from generate_series(0, 63) as i;
		update relay_state set head = 1`)
	require.NoError(o.t, err)
}

// FuzzAdmin: whatever is asked of the operators' routes is done or refused with a problem that says why; what is refused has
// changed nothing.
func FuzzAdmin(f *testing.F) {
	for i := range adminRoutes {
		for _, segment := range []string{"billing", "1", "%00", "%FF", "b%69lling", uuid.NewString(), "{" + uuid.NewString() + "}"} {
			f.Add(uint8(i), segment, []byte(`{"reason":"a test"}`))
		}
		f.Add(uint8(i), "1", []byte(`{"reason":"a test","force":true,"data":{"n":1e400}}`))
		f.Add(uint8(i), "1", []byte(`{"reason":"a\u0000","data":"\ud800"}`))
		f.Add(uint8(i), "billing", []byte(`{"pattern":"user.*","reason":"r"}`))
		f.Add(uint8(i), "%00", []byte(`{"pattern":"user.*","reason":"r"}`))
		f.Add(uint8(i), "%FF", []byte(`{"from":"beginning","reason":"r"}`))
		f.Add(uint8(i), "billing", []byte(`{"from":"0000-01-01T00:00:00Z","until":"9999-12-31T23:59:59-23:59","reason":"r"}`))
		f.Add(uint8(i), "billing", []byte(`{"from":"beginning","appends":true,"force":true,"reason":"r"}`))
		f.Add(uint8(i), "1", []byte(`{"filter":{"since":"0000-01-01T00:00:00Z","until":"9999-12-31T23:59:59-23:59"},"reason":"r"}`))
		f.Add(uint8(i), "1", []byte(`{"filter":{},"canary":false,"rate":1,"force":true,"reason":"r"}`))
		f.Add(uint8(i), "billing", []byte{})
	}
	for _, query := range []string{
		"error=%25%5c", "key=%00", "since=0000-01-01T00:00:00Z&until=9999-12-31T23:59:59-23:59", "cursor=4611686018427387904", "limit=101", "limit=%zz", "a;b", "state=gone", "type=%ff", "consumer=" + strings.Repeat("x", 256),
	} {
		f.Add(uint8(0), query, []byte{})
	}
	base := newOffice(f, map[string]string{operatorToken: "anna"})
	f.Fuzz(func(t *testing.T, route uint8, segment string, body []byte) {
		o := *base
		o.t = t
		o.clear()
		letter, _ := o.deadLetter(`{"user_id": "x"}`)
		pattern := strings.Replace(adminRoutes[int(route)%len(adminRoutes)], "{letter}", strconv.FormatInt(letter, 10), 1)
		method, path, ok := target(pattern, segment)
		if !ok {
			return
		}
		kept := func() (state string) {
			require.NoError(t, o.pool.QueryRow(t.Context(), keptByOffice).Scan(&state))
			return state
		}
		before := kept()
		a, err := (&shop{t: t, url: o.url}).try(t.Context(), method, path, string(body), "Authorization", "Bearer "+operatorToken)
		require.NoError(t, err)
		answered(t, a)
		if a.status >= 400 || method == http.MethodGet {
			require.Equal(t, before, kept(), a.raw)
		} else {
			require.True(t, slices.Contains([]int{200, 202}, a.status), a.raw)
		}
	})
}
