package handlers_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox"
)

// What holds the answers to the document would be no use if it let all of them pass: each of these differs in one thing from one that does.
func TestContractFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	const (
		cart     = "0197f3a0-5c1e-7000-8000-000000000003"
		good     = `{"cart_id":"` + cart + `","status":"open","cart_version":2,"items":[],"total":{"amount":0,"currency":"EUR"},"order_id":null,"created_at":"2026-01-31T12:00:00Z","event_id":"` + cart + `","correlation_id":"c"}`
		invalid  = `{"type":"validation","title":"t","status":422,"correlation_id":"c","errors":[{"pointer":"/sku","detail":"d"}]}`
		problem  = "application/problem+json"
		jsonType = "application/json"
	)
	type given struct {
		method, route, query, body string
		requestHeader              http.Header
		status                     int
		contentType, answer        string
		header                     http.Header
	}
	check := func(c *contract, g given) error {
		answer := &recorder{ResponseWriter: httptest.NewRecorder(), status: g.status, header: g.header}
		answer.body.WriteString(g.answer)
		if g.contentType != "" {
			answer.header.Set("Content-Type", g.contentType)
		}
		x := &exchange{
			listener: "api", route: g.route, answer: answer, names: []string{"cart_id"}, values: []string{cart},
			request: &http.Request{Method: g.method, URL: &url.URL{Path: g.route, RawQuery: g.query}, Header: g.requestHeader},
		}
		x.sent.WriteString(g.body)
		return c.check(x)
	}
	base := func() given {
		return given{
			method: "POST", route: "/v1/carts/:cart_id/items", body: `{"sku":"moka-pot","quantity":1}`, status: 200, contentType: jsonType, answer: good,
			requestHeader: http.Header{}, header: http.Header{"X-Correlation-Id": {"c"}, "Cache-Control": {"no-store"}},
		}
	}
	c, err := readContract(pgoutbox.OpenAPI)
	require.NoError(t, err)
	require.NoError(t, check(c, base()))
	require.True(t, c.seen["POST /v1/carts/{cart_id}/items 200"])
	require.Contains(t, c.unseen(), "POST /v1/carts/{cart_id}/items 404")
	require.NotContains(t, c.unseen(), "POST /v1/carts/{cart_id}/items 200")

	for name, change := range map[string]func(*given){
		"a status that is not documented": func(g *given) { g.status = 201 },
		"a field that nobody knows":       func(g *given) { g.answer = strings.Replace(good, `{`, `{"price":1,`, 1) },
		"a field that is missing":         func(g *given) { g.answer = strings.Replace(good, `"order_id":null,`, "", 1) },
		"a null that must not be":         func(g *given) { g.answer = strings.Replace(good, `[]`, "null", 1) },
		"a state that there is not":       func(g *given) { g.answer = strings.Replace(good, `"open"`, `"closed"`, 1) },
		"a time that is not UTC":          func(g *given) { g.answer = strings.Replace(good, `00Z`, `00+02:00`, 1) },
		"an id that is none":              func(g *given) { g.answer = strings.Replace(good, cart, "7", 1) },
		"no JSON":                         func(g *given) { g.answer = "<html>" },
		"two values":                      func(g *given) { g.answer = good + good },
		"another type of content":         func(g *given) { g.contentType = "text/html" },
		"no type of content":              func(g *given) { g.contentType = "" },
		"no correlation id":               func(g *given) { g.header.Del("X-Correlation-ID") },
		"a correlation id that is none":   func(g *given) { g.header.Set("X-Correlation-ID", "a b") },
		"a header that is not documented": func(g *given) { g.header.Set("X-Debug", "1") },
		"a request that is not valid":     func(g *given) { g.body = `{"sku":"moka-pot","quantity":0}` },
		"a request without its body":      func(g *given) { g.body = "" },
		"a header of the request":         func(g *given) { g.requestHeader.Set("Idempotency-Key", "ä") },
		"a method that is no operation":   func(g *given) { g.method = "PUT" },
		"a path that is no operation":     func(g *given) { g.route = "/v1/gifts" },
		"a problem of another status":     func(g *given) { g.status, g.contentType, g.answer = 409, problem, invalid },
		"a problem as plain JSON":         func(g *given) { g.status, g.contentType, g.answer = 422, jsonType, invalid },
		"a problem without its places": func(g *given) {
			g.status, g.contentType, g.answer = 422, problem, strings.Split(invalid, `,"errors"`)[0]+"}"
		},
		"a problem with more": func(g *given) {
			g.status, g.contentType, g.answer = 422, problem, strings.Replace(invalid, "{", `{"sku":"x",`, 1)
		},
		"a 503 without Retry-After": func(g *given) {
			g.status, g.contentType, g.answer = 503, problem, `{"type":"unavailable","title":"t","status":503,"correlation_id":"c"}`
		},
	} {
		g := base()
		change(&g)
		require.Error(t, check(c, g), name)
	}

	// And where the document is another one.
	for from, to := range map[string]string{
		"cart_version: {description": "cart_versions: {description", "enum: [open, checked_out]": "enum: [opened, checked_out]",
		"  /v1/carts/{cart_id}/items:\n    x-listeners: [api]": "  /v1/carts/{cart_id}/items:\n    x-listeners: [admin]", "  /v1/carts/{cart_id}/items:": "  /v1/carts/{cart_id}/item:",
		`sku: {$ref: "#/components/schemas/SKU"}`: "sku: {const: grinder}",
	} {
		changed := bytes.ReplaceAll(pgoutbox.OpenAPI, []byte(from), []byte(to))
		require.NotEqual(t, string(pgoutbox.OpenAPI), string(changed), from)
		other, err := readContract(changed)
		require.NoError(t, err)
		require.Error(t, check(other, base()), from)
	}
}
