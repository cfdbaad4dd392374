package handlers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
)

// posts are the routes that take a body, with a good one and one of its fields.
func posts(c *customer) map[string]struct{ good, field string } {
	cart := c.cart("moka-pot", 1)
	return map[string]struct{ good, field string }{
		"/v1/signup":                       {`{"email":"ada@example.com","password":"correct horse","name":"Ada"}`, "name"},
		"/v1/sessions":                     {`{"email":"ada@example.com","password":"correct horse"}`, "email"},
		"/v1/carts":                        {`{}`, ""},
		"/v1/carts/" + cart + "/items":     {`{"sku":"moka-pot","quantity":1}`, "sku"},
		"/v1/carts/" + cart + "/checkout":  {`{"payment_method":"pm_card_visa"}`, "payment_method"},
		"/v1/carts/" + cart + "/items?x=%": {`{"sku":"moka-pot","quantity":1}`, "sku"},
	}
}

func TestBadBodiesAreRefusedByName(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	routes := posts(c)
	before := s.events()
	for path, r := range routes {
		post := func(body any, header ...string) answer { return c.call("POST", path, body, header...) }
		with := func(member string) string {
			if r.good == "{}" {
				return "{" + member + "}"
			}
			return strings.TrimSuffix(r.good, "}") + "," + member + "}"
		}
		if r.field != "" {
			s.problem(post(nil), 400, "malformed")
			s.problem(post(""), 400, "malformed")
			s.problem(post(`{}`), 422, "validation")
			for _, wrong := range []string{`{"a":1}`, `[1]`, `12`, `true`, `null`} {
				s.problem(post(`{"`+r.field+`":`+wrong+`}`), 422, "validation", "/"+r.field)
			}
			s.problem(post(`{"`+r.field+`":"a\u0000b"}`), 422, "validation", "/"+r.field)
			s.problem(post("{\"x\":\"\uFFFD\",\""+r.field+"\":\"a\xffb\"}"), 400, "malformed", "/"+r.field)
			s.problem(post(`{"`+r.field+`":"a\ud83d"}`), 400, "malformed", "/"+r.field)
			s.problem(post(`{"`+r.field+`":"\\ud83d\uD83D\uDE00\udc00"}`), 400, "malformed", "/"+r.field)
			s.problem(post(`{"`+r.field+`":"a","`+r.field+`":"b"}`), 400, "malformed", "/"+r.field)
		}
		s.problem(post(with(`"admin":true`)), 422, "validation", "/admin")
		s.problem(post(with(`"a/b~c":true`)), 422, "validation", "/a~1b~0c")
		s.problem(post(with(`"x":{"deep":[1,{"y":1,"y":2}]}`)), 400, "malformed", "/x/deep/1/y")
		s.problem(post(with(`"x":{"\u0000":1}`)), 422, "validation", "/x/\uFFFD")
		s.problem(post(with(`"x":["\u0000"]`)), 422, "validation", "/x/0")
		s.problem(post(r.good+r.good), 400, "malformed")
		s.problem(post(r.good+`,`), 400, "malformed")
		s.problem(post(strings.TrimSuffix(r.good, "}")), 400, "malformed")
		s.problem(post("\xef\xbb\xbf"+r.good), 400, "malformed") // a byte order mark
		s.problem(post(`{'a':1}`), 400, "malformed")
		for _, value := range []string{`[]`, `null`, `"x"`, `1`, `[` + r.good + `]`} {
			s.problem(post(value), 422, "validation", "")
		}
		s.problem(post(strings.Repeat("[", 33)+strings.Repeat("]", 33)), 400, "malformed", strings.Repeat("/0", 32))
		s.problem(post(strings.Repeat("[", 30000)+strings.Repeat("]", 30000)), 400, "malformed")
		s.problem(post(with(`"x":"`+strings.Repeat("x", 1<<20)+`"`)), 413, "too-large")
		s.problem(post(with(`"x":"`+strings.Repeat("x", 64<<10)+`"`)), 413, "too-large")
		for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin1", "application/jsonx", ";"} {
			s.problem(post(r.good, "Content-Type", contentType), 415, "unsupported-media-type")
		}
		s.problem(post(r.good, "Content-Encoding", "gzip"), 415, "unsupported-media-type")
	}
	require.Equal(t, before, s.events())
	require.Zero(t, value[int](s, `select count(*) from orders`))
	require.Equal(t, 1, value[int](s, `select count(*) from users`))
}

func TestGoodBodiesInOtherWritingAreTaken(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	path := "/v1/carts/" + c.cart() + "/items"
	for _, contentType := range []string{"application/json", "application/json; charset=UTF-8", "Application/JSON"} {
		a := c.call("POST", path, " \n{\"quantity\" : 1,\t\"sku\":\"m\\u006fka-pot\"} ", "Content-Type", contentType)
		require.Equal(t, 200, a.status, a.raw)
	}
	emoji := credentials("ada@example.com")
	emoji["name"] = "x"
	a := s.call("POST", "/v1/signup", strings.Replace(remarshal(t, emoji), `"x"`, `"\ud83d\ude00 \\ud800"`, 1))
	require.Equal(t, 201, a.status, a.raw)
	require.Equal(t, `😀 \ud800`, value[string](s, `select name from users where email = 'ada@example.com'`))
}

func TestManyWrongFieldsAreOneShortAnswer(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	var body strings.Builder
	body.WriteString(`{"` + strings.Repeat("n", 5000) + `":1`)
	for i := range 1000 {
		fmt.Fprintf(&body, `,"x%d":1`, i)
	}
	body.WriteString("}")
	a := s.call("POST", "/v1/sessions", body.String())
	s.problem(a, 422, "validation")
	require.Len(t, a.pointers(), 20)
	require.Less(t, len(a.raw), 8<<10)
}

// What a client sends is in no log line, whatever becomes of the request.
func TestLogsHoldNothingOfTheRequest(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(cfg *handlers.Config) { cfg.StripeWebhookSecrets = []string{"whsec_x"} })
	c := s.customer()
	for path, r := range posts(c) {
		for _, body := range []string{
			strings.ReplaceAll(r.good, `":"`, `":"canary`), `{"canary":"canary"}`, `canary`, `{"email":"canary@example.com","password":"canary canary","name":"canary"}`,
		} {
			c.call("POST", path, body, key, "canary")
			c.call("POST", path+"canary?canary=canary", body, key, "canary\t")
		}
	}
	s.call("GET", "/v1/orders/canary?cursor=canary", nil, "Authorization", "Bearer canary", "Prefer", "wait=canary")
	s.call("POST", "/v1/webhooks/stripe", "canary", "Stripe-Signature", "t=1,v1=canary")
	s.call("CANARY", "/v1/canary", nil, "X-Correlation-ID", "last")
	s.log.with(t, `"last"`)
	require.NotContains(t, strings.ToLower(s.log.all()), "canary")
}
