package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v85/webhook"

	"github.com/pgoutbox/pgoutbox/handlers/pages"
)

// stormMaker makes requests up: most of them right in nearly all, and wrong somewhere.
type stormMaker struct {
	*rand.Rand
	known  *stormKnown
	worker int
	n      int
}

func (m *stormMaker) chance(in int) bool { return m.IntN(in) == 0 }

func (m *stormMaker) pick(from ...string) string { return from[m.IntN(len(from))] }

// strange are texts that are no value of anything, or hard to take for one.
var strange = []string{
	"", " ", "\x00", "%00", "\xff\xfe", "..", "../../etc/passwd", "%2e%2e%2f", "%", "%zz", "%C0%AF", "\u2028", "\ufeff", "😀", "ａ", "\u202e", "null", "undefined", "NaN", "true", "-0", "-1", "0", "1e400",
	"9223372036854775807", "9223372036854775808", "18446744073709551616", "0x10", "1.5", "+1", "٣", "'", "\"", "\\", "' or 1=1 --", "$1", "${jndi:ldap://x}", "<script>", "{}", "[]", "{{7*7}}", "\r\nX-Evil: 1", "a,b", "a;b",
	"urn:uuid:0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6", "{0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6}", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "infinity", "-infinity", "epoch", "now",
	"2026-02-30T00:00:00Z", "2026-01-31T12:00:00.123456789123Z", "4611686018427387904", "*", "/", "//", "?", "#", "&", "=", "\t", "\x7f", "\x1b[31m", "e\u0301", "İ",
}

func (m *stormMaker) strange() string {
	switch m.IntN(8) {
	case 0:
		return strings.Repeat(m.pick(strange...), 1+m.IntN(400))
	case 1:
		return m.pick(strange...) + m.pick(strange...)
	case 2:
		b := make([]byte, m.IntN(40))
		for i := range b {
			b[i] = byte(m.IntN(256))
		}
		return string(b)
	}
	return m.pick(strange...)
}

// segment is what stands for a parameter of a route.
func (m *stormMaker) segment(name string) string {
	if m.chance(5) {
		s := m.strange()
		if m.chance(2) {
			return s
		}
		return url.PathEscape(s)
	}
	k := m.known
	switch name {
	case "cart_id":
		return k.one(m, &k.carts)
	case "order_id":
		return k.one(m, &k.orders)
	case "sku":
		return m.pick("filter-beans", "espresso-beans", "moka-pot", "paper-filters")
	case "name":
		return m.pick("billing", "billing", "billing", "welcome-email", "nobody", "default", "*")
	case "correlation_id":
		return m.pick("storm", "storm", "corr-1", uuid.NewString())
	case "id":
		return m.pick(k.one(m, &k.letters), k.one(m, &k.letters), k.one(m, &k.things), k.one(m, &k.events), "1", "2", "3")
	case "*":
		return m.pick("api/jobs?state=available", "api/queues", "api/states", "api/jobs/1", "api/workflows", "api/health-checks/minimal", "jobs", "assets/x.js", "")
	}
	return m.pick("1", uuid.NewString(), "x")
}

func (m *stormMaker) path(route stormRoute) string {
	segments := strings.Split(route.path, "/")
	for i, s := range segments {
		if name, ok := strings.CutPrefix(s, ":"); ok {
			segments[i] = m.segment(name)
		} else if s == "*" {
			segments[i] = m.segment("*")
		}
	}
	path := strings.Join(segments, "/")
	switch m.IntN(60) {
	case 0:
		path += m.pick("/", "//", "/..", ";a=b", "%2f", "%00", strings.Repeat("/a", 2000))
	case 1:
		path = m.pick("//", "/./", "/%2e/", "http://other.example", "") + strings.TrimPrefix(path, "/")
	case 2:
		path = strings.ToUpper(path)
	case 3:
		i := m.IntN(len(path))
		path = path[:i] + fmt.Sprintf("%%%02x", path[i]) + path[i+1:]
	}
	return path
}

var stormParameters = []string{
	"limit", "cursor", "consumer", "type", "key", "correlation_id", "state", "since", "until", "error", "fingerprint", "actor", "action", "target", "after", "next", "done", "query", "page", "kinds", "queues", "ids",
}

func (m *stormMaker) parameter(name string) string {
	if m.chance(3) {
		return m.strange()
	}
	switch name {
	case "limit":
		return m.pick("1", "2", "50", "100", "101", "0")
	case "cursor":
		return m.pick("1", "5.7", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "bW9rYS1wb3Q")
	case "state":
		return m.pick("dead", "replaying", "replayed", "dismissed", "available", "running")
	case "since", "until":
		return m.pick("2026-01-31T12:00:00Z", time.Now().UTC().Format(time.RFC3339), "2026-01-31T12:00:00+14:00")
	case "next":
		return m.pick("/admin/ui/letters", "//evil.example", "https://evil.example", "/admin/ui/../..")
	}
	return m.pick("billing", "user.*", "user.signed_up", "storm", "anna", "replay", "1")
}

func (m *stormMaker) query() string {
	switch m.IntN(8) {
	case 0:
		return "?" + m.strange()
	case 1, 2, 3:
		values := url.Values{}
		for range m.IntN(4) {
			name := m.pick(stormParameters...)
			if m.chance(10) {
				name = m.strange()
			}
			values.Add(name, m.parameter(name))
		}
		return "?" + values.Encode()
	}
	return ""
}

// request is one for the route, as it goes over the wire.
func (m *stormMaker) request(route stormRoute) []byte {
	m.n++
	method := route.method
	if m.chance(25) {
		method = m.pick("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW", "get", "TRACE", "PROPFIND", m.strange())
	}
	var body []byte
	page := strings.HasPrefix(route.path, pages.Root)
	if method != "GET" && method != "HEAD" || m.chance(20) {
		if page {
			body = m.form()
		} else {
			body = m.body(route)
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s%s HTTP/%s\r\n", method, m.path(route), m.query(), m.oddly("1.1", "1.0", "2.0", "3.1", "0.9", "x"))
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	header("Host", m.oddly("127.0.0.1", "", "a b", "evil.example", "[::1]:x"))
	m.credentials(route, header)
	switch contentType := "application/json"; {
	case body == nil:
	case page:
		header("Content-Type", m.oddly("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain", m.strange()))
	default:
		header("Content-Type", m.oddly(contentType, "application/json; charset=UTF-8", "text/plain", "application/json; charset=latin1", "", ";", "application/json;;", m.strange()))
	}
	for _, h := range []struct {
		in     int
		name   string
		values []string
	}{
		{3, "Idempotency-Key", []string{"k", uuid.NewString(), `"quoted"`, `"open`, "", "ä", strings.Repeat("k", 255), strings.Repeat("k", 256), "a\tb"}},
		{12, "X-Correlation-ID", []string{"storm", "storm", strings.Repeat("c", 129), "a b", "..", "%00"}},
		{200, "Prefer", []string{"wait=1", "wait=0", "wait=-1", "wait=99999999999999999999", "respond-async, wait=0"}},
		{15, "traceparent", []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0-0-0", "ff-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01", "00"}},
		{30, "tracestate", []string{"a=b", strings.Repeat("a=b,", 100), "=,="}},
		{40, "baggage", []string{"user=1", strings.Repeat("k=v,", 500)}},
		{20, "X-Forwarded-For", []string{"10.0.0.1", "::1", "unknown", strings.Repeat("1.1.1.1,", 200)}},
		{40, "X-Forwarded-Proto", []string{"https", "x"}},
		{25, "Content-Encoding", []string{"gzip", "identity", "br"}},
		{30, "Accept-Encoding", []string{"gzip", "*;q=0"}},
		{30, "Origin", []string{"https://evil.example", "null", "http://127.0.0.1"}},
		{30, "Sec-Fetch-Site", []string{"cross-site", "same-origin", "none"}},
		{30, "HX-Request", []string{"true"}},
		{30, "If-None-Match", []string{"*", `"x"`}},
		{30, "Range", []string{"bytes=0-1", "bytes=-1", "bytes=9-1"}},
		{60, "Expect", []string{"100-continue", "200-ok"}},
		{60, "Connection", []string{"close", "upgrade", "keep-alive, Authorization"}},
		{60, "Upgrade", []string{"websocket", "h2c"}},
		{60, "Transfer-Encoding", []string{"gzip", "chunked, chunked", "identity", "xchunked"}},
		{60, "Content-Length", []string{"0", "-1", "+5", "5, 5", "18446744073709551616", "7"}},
		{60, "X-Made-Up", []string{strings.Repeat("x", 20_000), "a"}},
	} {
		if m.chance(h.in) {
			v := m.pick(h.values...)
			if m.chance(8) {
				v = m.strange()
			}
			header(h.name, v)
			if m.chance(30) {
				header(h.name, m.pick(h.values...))
			}
		}
	}
	if route.path == "/v1/webhooks/stripe" {
		header("Stripe-Signature", m.signature(body))
	}
	if m.chance(80) {
		header(m.pick("X Y", "", "X\x00", "Ä", "X-\xff"), m.strange())
	}
	m.frame(&b, body)
	return b.Bytes()
}

// oddly is nearly always the first.
func (m *stormMaker) oddly(usual string, others ...string) string {
	if m.chance(40) {
		return m.pick(others...)
	}
	return usual
}

func (m *stormMaker) credentials(route stormRoute, header func(name, value string)) {
	switch {
	case m.chance(20):
		header("Authorization", m.pick("Bearer", "Bearer ", "Bearer x", "Basic eDp5", "Bearer "+strings.Repeat("A", 43), "bearer  "+stormToken, "Bearer "+m.strange(), m.strange()))
	case !route.admin:
		header("Authorization", "Bearer "+m.pick(m.known.tokens...))
	case strings.HasPrefix(route.path, pages.Root), strings.HasPrefix(route.path, pages.River):
		header("Cookie", m.oddly(m.known.cookie, "outbox_session=", "outbox_session=YW5uYQ.1.x", "outbox_session="+m.strange(), m.known.cookie+"; "+m.known.cookie, strings.Repeat("a=b; ", 300)))
	default:
		header("Authorization", "Bearer "+stormToken)
	}
}

func (m *stormMaker) signature(body []byte) string {
	if m.chance(3) {
		return m.pick("", "t=1,v1=00", "t=99999999999999999999,v1=zz,v0=", m.strange())
	}
	return webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: body, Secret: stormSecret, Timestamp: time.Now()}).Header
}

// frame ends the header and gives the body, with its length or in chunks.
func (m *stormMaker) frame(b *bytes.Buffer, body []byte) {
	switch {
	case body == nil:
		b.WriteString("\r\n")
	case m.chance(5):
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		for rest := body; len(rest) > 0; {
			n := 1 + m.IntN(len(rest))
			fmt.Fprintf(b, "%x%s\r\n%s\r\n", n, m.oddly("", ";ext=1", "g", "\n"), rest[:n])
			rest = rest[n:]
		}
		b.WriteString(m.oddly("0\r\n\r\n", "", "0\r\nTrailer: x\r\n\r\n", "-1\r\n", "ffffffffffffffff1\r\n"))
	default:
		n := len(body)
		if m.chance(60) {
			n += m.IntN(9) - 4
		}
		fmt.Fprintf(b, "Content-Length: %d\r\n\r\n%s", n, body)
	}
}
