package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/handlers/pages"
	"github.com/pgoutbox/pgoutbox/internal/mailsink"
	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

var (
	stormRequests = flag.Int("requests", 3000, "how many requests TestStorm makes up")
	stormSeed     = flag.Uint64("seed", 0, "what TestStorm's requests are made from; 0: another each time")
)

const (
	stormWorkers = 16
	stormToken   = "a-token-of-annas"
	stormSecret  = "whsec_storm"
	// stormRaw is of how many requests one goes over a socket, byte by byte as it was made up, past every client's good manners.
	stormRaw = 25
	// stormEnding is what is left of the test's time for what follows the last request.
	stormEnding = time.Minute
	// stormPatience is how long an answer is waited for over a socket until no more is sent.
	stormPatience = 200 * time.Millisecond
)

// storm is a process with both listeners, as serve has them, and what its clients know of it.
type storm struct {
	t      *testing.T
	s      *service
	log    *keptLog
	routes []stormRoute
	often  []stormRoute // those of them that take little time
	known  *stormKnown
	// raw are requests by socket, and strangers those that were not in our HTTP.
	raw, strangers atomic.Int64

	hashing sync.Mutex

	mu     sync.Mutex
	wrong  []string
	counts map[string]int // by listener and status
}

// stormRoute is a route of a listener.
type stormRoute struct {
	admin        bool
	method, path string
}

// slow reports whether an answer is much work: a page, or what looks at all there is.
func (r stormRoute) slow() bool {
	return strings.HasPrefix(r.path, pages.Root) || strings.HasPrefix(r.path, pages.River) || r.path == "/metrics" || r.path == "/admin/stats"
}

func (r stormRoute) String() string { return r.method + " " + r.path }

// keptLog keeps what should not have been said: errors, and whatever has a stack.
type keptLog struct {
	mu   sync.Mutex
	said []string
}

func (l *keptLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, string(line))
	return len(line), nil
}

func newStorm(t *testing.T) *storm {
	t.Helper()
	var cfg config
	require.NoError(t, env.ParseWithOptions(&cfg, env.Options{Environment: map[string]string{
		"OUTBOX_ADDR": "127.0.0.1:0", "OUTBOX_ADMIN_ADDR": "127.0.0.1:0", "OUTBOX_ADMIN_TOKENS": "anna:" + stormToken,
		"OUTBOX_PAYMENTS": "sandbox", "STRIPE_WEBHOOK_SECRET": stormSecret, "OUTBOX_RATE_LIMITS": "off",
	}}))
	st := &storm{t: t, log: &keptLog{}, counts: map[string]int{}}
	log := slog.New(slog.NewJSONHandler(st.log, &slog.HandlerOptions{Level: slog.LevelError}))
	sink, err := mailsink.Start(t.Context(), t.TempDir(), log)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sink.Close(context.Background()) })
	pool := testdb.Pool(t)
	st.s = &service{cfg: cfg, role: roleAPI, log: log, pool: pool, dev: &handlers.DevTools{Mail: sink, Payments: payments.NewSandbox(pool)}}
	require.NoError(t, st.s.start(t.Context()))
	t.Cleanup(st.s.stop)
	for _, l := range []*listener{st.s.api, st.s.admin} {
		e, ok := l.server.Handler.(*echo.Echo)
		require.True(t, ok)
		for _, r := range e.Routes() {
			route := stormRoute{l == st.s.admin, r.Method, r.Path}
			st.routes = append(st.routes, route)
			if !route.slow() {
				st.often = append(st.often, route)
			}
		}
	}
	require.Greater(t, len(st.routes), 60)
	st.known = newStormKnown(t, st)
	return st
}

// A storm of made-up requests on every route of both listeners: none is answered with a fault of ours, each refusal says what is wrong, and what
// the shop holds afterwards fits together. For a million: go test ./cmd/outbox -run '^TestStorm$' -requests 1000000 -timeout 2h
func TestStorm(t *testing.T) {
	t.Parallel()
	st := newStorm(t)
	seed := *stormSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d -requests %d, on %d routes", seed, *stormRequests, len(st.routes))
	began := time.Now()
	end, limited := t.Deadline()
	var left, made atomic.Int64
	left.Store(int64(*stormRequests))
	var workers sync.WaitGroup
	for i := range stormWorkers {
		workers.Go(func() {
			m := &stormMaker{Rand: rand.New(rand.NewPCG(seed, uint64(i))), known: st.known, worker: i}
			for {
				n := left.Add(-1)
				if n < 0 || st.enough() || limited && time.Until(end) < stormEnding {
					return
				}
				made.Add(1)
				if n%2000 == 1 {
					st.known.plant(t.Context())
				}
				if n > 0 && n%50_000 == 0 {
					t.Logf("%d to go, after %s", n, time.Since(began).Round(time.Second))
				}
				route := st.often[m.IntN(len(st.often))]
				if m.chance(8) {
					route = st.routes[m.IntN(len(st.routes))]
				}
				st.send(route, m.request(route), m.IntN(stormRaw) == 0)
			}
		})
	}
	workers.Wait()
	t.Logf("%d requests in %s, %d of them over a socket, where %d were in no HTTP of ours; answers: %v",
		made.Load(), time.Since(began).Round(time.Second), st.raw.Load(), st.strangers.Load(), st.counts)
	for _, wrong := range st.wrong {
		t.Error(wrong)
	}
	require.Empty(t, st.log.said[:min(len(st.log.said), 10)], "nothing is an error, and nothing panicked")
	for _, want := range []string{"api 2xx", "api 4xx", "admin 2xx", "admin 3xx", "admin 4xx"} {
		require.Positive(t, st.counts[want], "there are answers of each kind: %v", st.counts)
	}
	st.sound()
}

func (st *storm) enough() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.wrong) >= 10
}

func (st *storm) blame(sent []byte, format string, args ...any) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.wrong = append(st.wrong, fmt.Sprintf(format, args...)+fmt.Sprintf("\nto %.1500q", sent))
}

func (st *storm) count(admin bool, status int) {
	name := "api"
	if admin {
		name = "admin"
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.counts[fmt.Sprintf("%s %dxx", name, status/100)]++
}

// send lets the listener's handler answer the request as its server would read it. What a server does not read, or is to go by a socket, does.
func (st *storm) send(route stormRoute, sent []byte, bySocket bool) {
	l := st.s.api
	if route.admin {
		l = st.s.admin
	}
	if route.path == "/v1/signup" || route.path == "/v1/sessions" {
		// A crowd of these is told to come later, on purpose: passwords are hashed by few at a time.
		st.hashing.Lock()
		defer st.hashing.Unlock()
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(sent)))
	if err != nil || bySocket {
		st.raw.Add(1)
		st.overSocket(route, l.addr, sent)
		return
	}
	defer func() {
		if r := recover(); r != nil {
			st.blame(sent, "%s: a panic that nobody caught: %v", route, r)
		}
	}()
	req.RemoteAddr = "127.0.0.1:1"
	if req.Header.Get("Prefer") != "" { // nobody has half a minute
		ctx, leave := context.WithCancel(req.Context())
		defer leave()
		defer time.AfterFunc(30*time.Millisecond, leave).Stop()
		req = req.WithContext(ctx)
	}
	answer := httptest.NewRecorder()
	l.server.Handler.ServeHTTP(answer, req)
	if req.Context().Err() != nil {
		return
	}
	if answer.Code == http.StatusServiceUnavailable && route.path == "/metrics" {
		return // so many scrapes are answered at a time, and no more
	}
	st.count(route.admin, answer.Code)
	if fault := faultOf(req, answer.Code, answer.Header(), answer.Body.Bytes()); fault != "" {
		st.blame(sent, "%s: %s: %d %v %.200q", route, fault, answer.Code, answer.Header(), answer.Body.String())
	}
	st.known.learn(route, req, answer.Code, answer.Body.Bytes())
}

// overSocket sends the bytes as they are, and reads all that comes.
func (st *storm) overSocket(route stormRoute, addr net.Addr, sent []byte) {
	conn, err := net.DialTimeout("tcp", addr.String(), 10*time.Second)
	if err != nil {
		st.blame(sent, "%s: no connection: %v", route, err)
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(stormPatience))
	_, _ = conn.Write(sent) // the server may have hung up on it
	answers := bufio.NewReader(conn)
	for half := false; ; {
		res, err := http.ReadResponse(answers, nil)
		var timeout net.Error
		if err != nil && errors.As(err, &timeout) && timeout.Timeout() && !half {
			// It waits for more. That no more comes ends also what it does, and with it the answer.
			half = true
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			continue
		}
		if err != nil {
			if errors.As(err, &timeout) && timeout.Timeout() {
				st.blame(sent, "%s: neither an answer nor an end", route)
			}
			return
		}
		body, _ := io.ReadAll(res.Body)
		if !half {
			_ = conn.SetDeadline(time.Now().Add(stormPatience / 20))
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusNotImplemented || res.StatusCode == http.StatusHTTPVersionNotSupported {
			st.strangers.Add(1) // the HTTP server's own words for a transfer encoding, and a version, that it does not speak
			continue
		}
		if res.StatusCode == http.StatusServiceUnavailable && route.path == "/metrics" {
			continue
		}
		st.count(route.admin, res.StatusCode)
		if res.StatusCode >= 500 {
			st.blame(sent, "%s: %d over a socket: %.200q", route, res.StatusCode, body)
		}
	}
}

// cookie signs in to the pages.
func (st *storm) cookie() string {
	st.t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/admin/ui/login", strings.NewReader(url.Values{"token": {stormToken}}.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer := httptest.NewRecorder()
	st.s.admin.server.Handler.ServeHTTP(answer, req)
	cookies := answer.Result().Cookies()
	require.Len(st.t, cookies, 1)
	return cookies[0].Name + "=" + cookies[0].Value
}
