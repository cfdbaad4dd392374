package pages_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// all are the paths of the pages, with an id that fill makes where there is one.
func all(event string) []string {
	return []string{
		"/admin/ui", "/admin/ui/letters", "/admin/ui/letters?state=all", "/admin/ui/letters/1", "/admin/ui/search", "/admin/ui/trace/corr-9",
		"/admin/ui/events/" + event, "/admin/ui/consumers", "/admin/ui/consumers/billing", "/admin/ui/audit", "/admin/ui/operations",
		"/admin/ui/nothing", "/admin/ui/operations/1",
		"/admin/ui/letters/999", "/admin/ui/letters/x", "/admin/ui/trace/nobody", "/admin/ui/events/x", "/admin/ui/consumers/nobody",
	}
}

// Without a session all that the pages lead to is the login, whether there is something or not.
func TestPagesWithoutASessionLeadToTheLogin(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	event := o.fill()
	for _, path := range append(all(event.String()), "/admin/ui/", "/admin/ui/data/overview.json", "/admin/ui/letters/1/replay") {
		a := o.get(path)
		require.Equal(t, 303, a.status, path)
		require.True(t, strings.HasPrefix(a.header.Get("Location"), "/admin/ui/login"), a.header.Get("Location"))
		require.Empty(t, a.body)
		o.guarded(a)
		// A token is no session, and a session no token.
		require.Equal(t, 303, o.send("GET", path, nil, "Authorization", "Bearer "+token).status, path)
	}
	for _, path := range []string{
		"/admin/ui/logout", "/admin/ui/letters/1/replay", "/admin/ui/letters/1/rehearse", "/admin/ui/letters/1/dismiss", "/admin/ui/letters/1/redact",
		"/admin/ui/operations", "/admin/ui/operations/1/stop", "/admin/ui/search", "/admin/ui/consumers/billing/pause",
		"/admin/ui/consumers/billing/resume", "/admin/ui/consumers/billing/backfill", "/admin/ui/consumers/billing/backfills/1/stop",
	} {
		a := o.post(path, url.Values{"reason": {"none"}})
		require.Equal(t, 303, a.status, path)
		require.Equal(t, "/admin/ui/login", a.header.Get("Location"), path)
	}
	a := o.send("GET", "/admin/ui", nil, "HX-Request", "true")
	require.Equal(t, 401, a.status, "a part of a page cannot become the login")
	require.Equal(t, "/admin/ui/login", a.header.Get("HX-Redirect"))
	require.Zero(t, value[int](o, `select count(*) from audit where actor <> $1`, poison))

	o.signIn()
	for _, path := range []string{"/admin/dlq", "/admin/consumers", "/admin/nothing"} {
		require.Equal(t, 401, o.get(path).status, "%s with a cookie", path)
	}
	require.Equal(t, 200, o.get("/admin/ui/letters/1").status)
	require.Equal(t, 303, o.post("/admin/ui/logout", nil).status)
	require.Equal(t, 303, o.get("/admin/ui/letters/1").status, "the session is over")
}

func TestLoginSendsBackToWhereOneCameFrom(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	asked := o.get("/admin/ui/letters?state=dead&consumer=billing")
	form := o.page(o.get(asked.header.Get("Location")))
	next := ""
	for n := range form.Descendants() {
		if attr(n, "name") == "next" {
			next = attr(n, "value")
		}
	}
	require.Equal(t, "/admin/ui/letters?state=dead&consumer=billing", next)
	a := o.post("/admin/ui/login", url.Values{"token": {token}, "next": {next}})
	require.Equal(t, 303, a.status)
	require.Equal(t, next, a.header.Get("Location"))
	cookie := a.header.Get("Set-Cookie")
	for _, part := range []string{"HttpOnly", "SameSite=Strict", "Path=/admin", "Max-Age=43200"} {
		require.Contains(t, cookie, part)
	}
	require.NotContains(t, cookie, "Secure", "over plain HTTP a browser would not send it back")
	require.NotContains(t, cookie, token)

	for _, elsewhere := range []string{
		"https://evil.example/admin/ui", "//evil.example/admin/ui", `/\evil.example`, "/admin/ui\\..\\x", "/admin/ui/../dlq", "/admin/ui//evil.example",
		"/admin/dlq", "/admin/uix", "javascript:alert(1)", "/admin/ui/logout", "/admin/ui/login", "", "admin/ui", "/admin/ui/letters\r\nX: y", "%",
	} {
		a := newSmallOffice(t).send("POST", "/admin/ui/login", url.Values{"token": {token}, "next": {elsewhere}}, "X-Forwarded-Proto", "https")
		require.Equal(t, 303, a.status)
		require.Equal(t, "/admin/ui", a.header.Get("Location"), "after %q", elsewhere)
		require.Contains(t, a.header.Get("Set-Cookie"), "Secure")
	}
}

func TestLoginRefusesAndLimitsGuesses(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for i := range 10 {
		a := o.post("/admin/ui/login", url.Values{"token": {"guess " + strconv.Itoa(i)}})
		require.Equal(t, 401, a.status)
		require.Empty(t, a.header.Get("Set-Cookie"))
		require.Contains(t, text(o.page(a)), "That is no operator's token.")
		require.NotContains(t, a.body, "guess ")
	}
	a := o.post("/admin/ui/login", url.Values{"token": {token}})
	require.Equal(t, 429, a.status, "not even the right one is looked at")
	require.Equal(t, "10", a.header.Get("Retry-After"))
	o.page(a)
}

// What another site makes a browser send is refused, before anything else is looked at.
func TestAnotherSiteIsRefused(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.fill()
	o.signIn()
	form := url.Values{"reason": {"not mine"}}
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
	} {
		for _, path := range []string{"/admin/ui/letters/1/dismiss", "/admin/ui/letters/1/replay", "/admin/ui/letters/1/redact", "/admin/ui/consumers/billing/pause", "/admin/ui/logout", "/admin/ui/login"} {
			a := o.send("POST", path, form, header...)
			require.Equal(t, 403, a.status, "%s %v", path, header)
			o.page(a)
		}
	}
	require.Equal(t, "dead", value[string](o, `select state from discarded_jobs`))
	require.Zero(t, value[int](o, `select count(*) from consumers where paused_at is not null`))
	require.Equal(t, 303, o.send("POST", "/admin/ui/letters/1/dismiss", form, "Origin", o.url).status, "a browser that tells no more than its origin")
}

// sealed is a session as the login makes it, with any name, key and end.
func sealed(name, key string, expires time.Time) string {
	mac := func(key, said []byte) []byte {
		h := hmac.New(sha256.New, key)
		h.Write(said)
		return h.Sum(nil)
	}
	said := base64.RawURLEncoding.EncodeToString([]byte(name)) + "." + strconv.FormatInt(expires.Unix(), 10)
	return said + "." + base64.RawURLEncoding.EncodeToString(mac(mac([]byte(key), []byte("pgoutbox session 1")), []byte(said)))
}

func TestForgedAndOldSessionsLeadToTheLogin(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(time.Hour)
	good := sealed("anna", token, soon)
	flipped := []byte(good)
	flipped[len(flipped)-2] ^= 1
	for what, c := range map[string]struct {
		cookie string
		status int
	}{
		"a good one":            {good, 200},
		"one of another":        {sealed("anna", "a-token-of-berts", soon), 303},
		"one of no token":       {sealed("anna", "gone-from-the-configuration", soon), 303},
		"one of an empty token": {sealed("anna", "", soon), 303},
		"an unknown name":       {sealed("carl", token, soon), 303},
		"an old one":            {sealed("anna", token, time.Now().Add(-time.Second)), 303},
		"one made longer":       {strings.Replace(good, strconv.FormatInt(soon.Unix(), 10), strconv.FormatInt(soon.Unix()+1, 10), 1), 303},
		"a forged one":          {string(flipped), 303},
		"none":                  {"", 303},
		"dots":                  {"..", 303},
		"the token itself":      {token, 303},
		"no signature":          {good[:strings.LastIndexByte(good, '.')+1], 303},
	} {
		o := newSmallOffice(t)
		require.Equal(t, c.status, o.send("GET", "/admin/ui/search", nil, "Cookie", "outbox_session="+c.cookie).status, what)
	}
}

// newSmallOffice has no database: for what is decided without one.
func newSmallOffice(t testing.TB) *office {
	t.Helper()
	o := &office{t: t}
	server := httptest.NewServer(handlers.NewAdmin(handlers.AdminConfig{
		Config:   handlers.Config{Logger: slog.New(slog.DiscardHandler)},
		Operator: outbox.NewOperator(nil, idleJobs{}, "", nil), Tokens: map[string]string{token: "anna", "a-token-of-berts": "bert"},
	}))
	t.Cleanup(server.Close)
	o.url = server.URL
	o.leave()
	return o
}

func TestWithoutTokensThereAreNoPages(t *testing.T) {
	t.Parallel()
	e := handlers.NewAdmin(handlers.AdminConfig{Config: handlers.Config{Logger: slog.New(slog.DiscardHandler)}})
	for _, path := range []string{"/", "/admin/ui", "/admin/ui/login"} {
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		require.Equal(t, 404, rec.Code, path)
	}
}

// Static files are for everybody, and for ever: their path changes with their content.
func TestStaticFilesAreKept(t *testing.T) {
	t.Parallel()
	o := newSmallOffice(t)
	page := o.page(o.get("/admin/ui/login"))
	seen := 0
	for n := range page.Descendants() {
		for _, path := range []string{attr(n, "src"), attr(n, "href")} {
			if !strings.HasPrefix(path, "/admin/ui/static/") {
				continue
			}
			seen++
			a := o.get(path)
			require.Equal(t, 200, a.status, path)
			require.Equal(t, "public, max-age=31536000, immutable", a.header.Get("Cache-Control"))
			require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
			require.Contains(t, []string{"text/css; charset=utf-8", "text/javascript; charset=utf-8", "image/svg+xml"}, a.header.Get("Content-Type"))
			require.NotEmpty(t, a.body)
			parts := strings.Split(path, "/")
			parts[4] = "0000000000000000"
			require.Equal(t, 404, o.get(strings.Join(parts, "/")).status)
		}
	}
	require.Equal(t, 6, seen)
	require.Equal(t, 404, o.get("/admin/ui/static/x/..%2Fpages.go").status)
}
