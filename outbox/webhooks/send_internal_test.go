package webhooks

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"golang.org/x/net/dns/dnsmessage"
)

var loopback = Options{Networks: prefixes("127.0.0.0/8", "::1/128"), Timeout: time.Minute}

// sent sends something to a URL and returns the status and the class of the failure.
func sent(t *testing.T, s *sender, url string) (status int, class string) {
	t.Helper()
	m := message{url: url, id: "an-id", body: []byte(`{"canary":"body"}`), secrets: []string{newSecret()}}
	status, err := s.send(t.Context(), m)
	if err == nil {
		return status, ""
	}
	var f *failure
	require.ErrorAs(t, err, &f)
	require.Equal(t, status, f.status)
	require.Nil(t, errors.Unwrap(err), "no text of theirs")
	for _, secret := range []string{m.secrets[0], strings.TrimPrefix(m.secrets[0], secretPrefix), "canary", "127.0.0.1"} {
		require.NotContains(t, err.Error(), secret)
	}
	return status, f.class
}

// server answers by a handler, at a URL that nobody but the endpoint is to see.
func server(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return srv.URL + "/canary-path?token=canary-query"
}

func TestWhatIsSent(t *testing.T) {
	t.Parallel()
	secret := newSecret()
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		hook, _ := standardwebhooks.NewWebhook(secret)
		switch {
		case err != nil || hook.Verify(body, r.Header) != nil:
			w.WriteHeader(401)
		case r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/cloudevents+json" || r.Header.Get("webhook-id") != "an-id",
			!strings.HasPrefix(r.Header.Get("User-Agent"), "pgoutbox/"), r.Header.Get("Accept-Encoding") != "", r.URL.RequestURI() != "/canary-path?token=canary-query":
			w.WriteHeader(400)
		default:
			w.WriteHeader(202)
		}
	})
	status, err := newSender(loopback, nil).send(t.Context(), message{url: url, id: "an-id", body: []byte(`{}`), secrets: []string{newSecret(), secret}})
	require.NoError(t, err)
	require.Equal(t, 202, status)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	s := newSender(loopback, nil)
	for _, status := range []int{200, 201, 204, 299} {
		got, class := sent(t, s, server(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		require.Equal(t, status, got)
		require.Empty(t, class)
	}
	for _, status := range []int{300, 301, 304, 307, 308, 400, 401, 404, 410, 413, 429, 500, 503, 599} {
		var hits atomic.Int32
		elsewhere := server(t, func(http.ResponseWriter, *http.Request) { hits.Add(100) })
		got, class := sent(t, s, server(t, func(w http.ResponseWriter, _ *http.Request) {
			hits.Add(1)
			w.Header().Set("Location", elsewhere)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "canary")
		}))
		require.Equal(t, status, got)
		require.Equal(t, "answered "+strconv.Itoa(status), class)
		require.EqualValues(t, 1, hits.Load(), "once, and nowhere else: %d", status)
	}
}

// An endpoint that does not come to an end does not keep us.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	s := newSender(loopback, nil)
	endless := func(status, chunk int, pause time.Duration) string {
		return server(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			for chunk := make([]byte, chunk); r.Context().Err() == nil; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(pause):
				}
			}
		})
	}
	status, class := sent(t, s, endless(200, 6000, 0))
	require.Equal(t, 200, status)
	require.Empty(t, class)
	status, class = sent(t, s, endless(500, 6000, 0))
	require.Equal(t, 500, status)
	require.Equal(t, "answered 500", class)
	status, class = sent(t, s, endless(200, 1, time.Hour)) // a trickle
	require.Equal(t, 200, status)
	require.Empty(t, class)

	_, class = sent(t, s, server(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("canary", maxHeader)) }))
	require.Equal(t, errNoAnswer, class)

	slow := loopback
	slow.Timeout = 200 * time.Millisecond
	_, class = sent(t, newSender(slow, nil), server(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // for the server to see that the client leaves
		<-r.Context().Done()
	}))
	require.Equal(t, errTimeout, class)
}

// raw listens, and answers each connection by what do does.
func raw(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				do(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// A receiver that dies has taken what it has said that it took, and nothing else.
func TestReceiversThatDie(t *testing.T) {
	t.Parallel()
	s := newSender(loopback, nil)
	says := func(answer string) func(net.Conn) {
		return func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 64<<10))
			_, _ = io.WriteString(conn, answer)
		}
	}
	status, class := sent(t, s, "http://"+raw(t, says("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ncanary")))
	require.Equal(t, 200, status)
	require.Empty(t, class)
	for _, answer := range []string{"", "HTTP/1.1 20", "canary\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: canary\r\n\r\n"} {
		_, class = sent(t, s, "http://"+raw(t, says(answer)))
		require.Equal(t, errNoAnswer, class, answer)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, class = sent(t, s, "http://"+l.Addr().String())
	require.Equal(t, errNoConn, class)
	_, class = sent(t, s, "https://"+raw(t, says("canary, and no TLS at all")))
	require.Equal(t, errTLS, class)
}

func TestCertificatesAreVerified(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	s := newSender(loopback, nil)
	_, class := sent(t, s, srv.URL)
	require.Equal(t, errCertificate, class)

	trusting := newSender(loopback, nil)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	trusting.clients["https"].Transport.(*http.Transport).TLSClientConfig.RootCAs = roots
	status, class := sent(t, trusting, srv.URL)
	require.Equal(t, 200, status)
	require.Empty(t, class)
	_, class = sent(t, trusting, strings.Replace(srv.URL, "127.0.0.1", "127.0.0.2", 1))
	require.NotEmpty(t, class, "it is of another name")
}

// Addresses are looked at when they are dialled, also where plain http is not allowed, and no proxy is asked.
func TestAddressesAreLookedAtWhenDialled(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	url := server(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	strict := Options{Timeout: time.Minute}
	for _, u := range []string{url, strings.Replace(url, "http:", "https:", 1), strings.Replace(url, "127.0.0.1", "localhost", 1), strings.Replace(url, "127.0.0.1", "[::ffff:127.0.0.1]", 1)} {
		_, class := sent(t, newSender(strict, nil), u)
		require.Equal(t, errNotAllowed, class, u)
	}
	require.Zero(t, hits.Load())
	require.Nil(t, newSender(strict, nil).clients["https"].Transport.(*http.Transport).Proxy)
}

// names is a DNS server that tells of every name the address that it was told last.
func names(t *testing.T) (resolver *net.Resolver, tell func(netip.Addr)) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	var now atomic.Pointer[netip.Addr]
	go func() {
		for buf := make([]byte, 2048); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA && now.Load() != nil {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: now.Load().As4()},
				}}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}, func(a netip.Addr) { now.Store(&a) }
}

// A name that led to an address that is allowed, and leads to another one when it is dialled again, is of no use.
func TestNamesThatAreBoundAgain(t *testing.T) {
	t.Parallel()
	var allowed, secret atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.2:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	behind, err := net.Listen("tcp", "127.0.0.3:"+port)
	require.NoError(t, err)
	for l, hits := range map[net.Listener]*atomic.Int32{l: &allowed, behind: &secret} {
		srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) })}} //nolint:gosec // it is a test's
		srv.Start()
		t.Cleanup(srv.Close)
	}
	resolver, tell := names(t)
	o := Options{Networks: prefixes("127.0.0.2/32"), Timeout: time.Minute}
	s := newSender(o, resolver)
	url := "http://hooks.example:" + port + "/"
	require.NoError(t, s.checkURL(url))

	tell(netip.MustParseAddr("127.0.0.2"))
	status, class := sent(t, s, url)
	require.Equal(t, 200, status)
	require.Empty(t, class)
	tell(netip.MustParseAddr("127.0.0.3"))
	s.clients["http"].CloseIdleConnections() // as time does
	_, class = sent(t, s, url)
	require.Equal(t, errNotAllowed, class)
	require.EqualValues(t, 1, allowed.Load())
	require.Zero(t, secret.Load())

	// The same without a network: a name of loopback, over TLS.
	_, class = sent(t, newSender(Options{Timeout: time.Minute}, resolver), strings.Replace(url, "http:", "https:", 1))
	require.Equal(t, errNotAllowed, class)
	require.Zero(t, secret.Load())
}

func TestHostsThatAreNot(t *testing.T) {
	t.Parallel()
	resolver, _ := names(t) // that knows nothing
	_, class := sent(t, newSender(loopback, resolver), "https://hooks.example/")
	require.Equal(t, errNoHost, class)
}

func TestWhoIsCalledOffIsNoFailure(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	url := server(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	})
	_, err := newSender(loopback, nil).send(ctx, message{url: url, id: "i", body: []byte(`{}`), secrets: []string{newSecret()}})
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, errors.As(err, new(*failure)))
	require.NotContains(t, err.Error(), "canary")
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for said, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, " 30 ": 30 * time.Second, "3600": time.Hour, "86400": time.Hour, "99999999999999999999999999": time.Hour, "-1": 0, "soon": 0, "1.5": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:04:04 GMT": 0, "Sat, 03 Jan 2026 03:04:05 GMT": time.Hour,
	} {
		for status, asks := range map[int]bool{429: true, 502: true, 503: true, 504: true, 500: false, 404: false, 301: false} {
			res := &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {said}}}
			if !asks {
				require.Zero(t, retryAfter(res, now))
				continue
			}
			require.Equal(t, want, retryAfter(res, now), said)
		}
	}
}

func TestSendingIsASpan(t *testing.T) {
	t.Parallel()
	kept := tracetest.NewInMemoryExporter()
	ctx, around := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept)).Tracer("test").Start(t.Context(), "deliver")
	var header string
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Get("traceparent")
		w.WriteHeader(503)
	})
	_, err := newSender(loopback, nil).send(ctx, message{url: url, id: "canary-id", body: []byte(`{}`), secrets: []string{newSecret()}})
	require.Error(t, err)
	spans := kept.GetSpans()
	require.Len(t, spans, 1)
	require.Equal(t, "send webhook", spans[0].Name)
	require.Equal(t, around.SpanContext().SpanID(), spans[0].Parent.SpanID())
	require.Equal(t, codes.Error, spans[0].Status.Code)
	require.Contains(t, header, spans[0].SpanContext.SpanID().String())
	said := map[string]string{}
	for _, a := range spans[0].Attributes {
		said[string(a.Key)] = a.Value.String()
		require.NotContains(t, a.Value.String(), "canary")
	}
	require.Equal(t, "127.0.0.1", said["server.address"])
	require.Equal(t, "503", said["http.response.status_code"])
	require.Equal(t, "503", said["error.type"])
}
