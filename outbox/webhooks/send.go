package webhooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const (
	userAgent   = "pgoutbox/1 (webhooks)"
	contentType = "application/cloudevents+json"

	idleTime  = 30 * time.Second // for so long a connection outlives a change of what its host's name leads to
	maxHeader = 16 << 10
	maxConns  = 64 // to one host, of all endpoints there
	maxIdle   = 4
	// The body of an answer says nothing to us. It is read so far, and for so long, for the connection to be used again.
	maxBody  = 4 << 10
	bodyTime = 250 * time.Millisecond

	maxRetryAfter = time.Hour
)

// What the world may know of a failure: classes of our own, and no text of theirs.
const (
	errNotAllowed  = "address not allowed"
	errNoHost      = "host not found"
	errNoConn      = "no connection"
	errCertificate = "TLS: certificate not valid"
	errTLS         = "TLS: no agreement"
	errTimeout     = "timed out"
	errNoAnswer    = "no answer"
)

// failure is why a delivery failed.
type failure struct {
	class      string
	status     int // 0: no answer
	retryAfter time.Duration
}

func (f *failure) Error() string { return f.class }

// errAddress says that the rules forbid what was to be dialled.
var errAddress = errors.New(errNotAllowed)

// sender sends to endpoints.
type sender struct {
	networks []netip.Prefix
	timeout  time.Duration
	clients  map[string]*http.Client // by scheme
}

// newSender returns a sender that finds addresses by the resolver (nil: as this machine does).
func newSender(o Options, resolver *net.Resolver) *sender {
	s := &sender{networks: o.Networks, timeout: o.Timeout, clients: map[string]*http.Client{}}
	for _, scheme := range []string{"http", "https"} {
		s.clients[scheme] = newClient(s.rules(scheme), o.Timeout, resolver)
	}
	return s
}

// rules are those of a scheme: plain text stays at home.
func (s *sender) rules(scheme string) rules {
	return rules{networks: s.networks, public: scheme == "https"}
}

// newClient returns a client that asks the rules of each address that it is about to dial, after its name was resolved: whatever a name leads to
// at another time is of no use to anybody. It has no proxy, which would dial in its place, no cookies, and follows no redirect.
func newClient(r rules, timeout time.Duration, resolver *net.Resolver) *http.Client {
	dialer := &net.Dialer{
		Timeout: timeout, Resolver: resolver,
		Control: func(_, address string, _ syscall.RawConn) error {
			if at, err := netip.ParseAddrPort(address); err != nil || !r.allow(at.Addr()) {
				return errAddress
			}
			return nil
		},
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: timeout,
			ForceAttemptHTTP2: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeader, MaxConnsPerHost: maxConns,
			MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: idleTime,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// message is what is sent, and where to.
type message struct {
	url     string
	id      string
	body    []byte
	secrets []string
}

// send posts a message, once, and returns the answer's status. The status alone says whether it was taken; any other error than a *failure
// is no fault of the endpoint. It takes no longer than the timeout and what the body has.
func (s *sender) send(ctx context.Context, m message) (status int, err error) {
	u, err := url.Parse(m.url)
	if err != nil || s.clients[u.Scheme] == nil {
		return 0, errors.New("webhooks: the endpoint's URL is none") // it was checked; nobody is to see it here
	}
	ctx, span := trace.SpanFromContext(ctx).TracerProvider().Tracer(scope).
		Start(ctx, "send webhook", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(serverOf(u)...))
	defer func() { endSpan(span, status, err) }()

	sending, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(s.timeout, func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	req, err := http.NewRequestWithContext(sending, http.MethodPost, m.url, bytes.NewReader(m.body))
	if err != nil {
		return 0, errors.New("webhooks: the endpoint's URL is none")
	}
	if req.Header, err = headers(ctx, m, time.Now()); err != nil {
		return 0, err
	}
	res, err := s.clients[u.Scheme].Do(req)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return 0, ctx.Err() // it was called off
		}
		return 0, &failure{class: classOf(err, context.Cause(sending))}
	}
	timer.Reset(bodyTime)
	_, _ = io.CopyN(io.Discard, res.Body, maxBody)
	_ = res.Body.Close()
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return res.StatusCode, nil
	}
	return res.StatusCode, &failure{fmt.Sprintf("answered %d", res.StatusCode), res.StatusCode, retryAfter(res, time.Now())}
}

func headers(ctx context.Context, m message, now time.Time) (http.Header, error) {
	signatures := make([]string, len(m.secrets))
	for i, secret := range m.secrets {
		hook, err := standardwebhooks.NewWebhook(secret)
		if err == nil {
			signatures[i], err = hook.Sign(m.id, now, m.body)
		}
		if err != nil {
			return nil, errors.New("webhooks: the endpoint's secret is none") // the cause may tell of it
		}
	}
	h := http.Header{}
	h.Set("Content-Type", contentType)
	h.Set("User-Agent", userAgent)
	h.Set(standardwebhooks.HeaderWebhookID, m.id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
	return h, nil
}

// classOf says in our words why there was no answer.
func classOf(err, cause error) string {
	var dns *net.DNSError
	var op *net.OpError
	var timeout net.Error
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var wrong x509.HostnameError
	var verification *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.Is(err, errAddress):
		return errNotAllowed
	case errors.Is(cause, context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errTimeout
	case errors.As(err, &dns):
		return errNoHost
	case errors.As(err, &verification), errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &wrong):
		return errCertificate
	case errors.As(err, &record), errors.As(err, &alert):
		return errTLS
	case errors.As(err, &op) && op.Op == "dial":
		return errNoConn
	}
	return errNoAnswer
}

// retryAfter is for how long an endpoint asks to be left alone, in one of the answers by which that may be asked for.
func retryAfter(res *http.Response, now time.Time) time.Duration {
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return 0
	}
	said := strings.TrimSpace(res.Header.Get("Retry-After"))
	if n, err := strconv.ParseUint(said, 10, 63); err == nil {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		return maxRetryAfter
	}
	if at, err := http.ParseTime(said); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// scope names the package to whoever reads its spans.
const scope = "github.com/pgoutbox/pgoutbox/outbox/webhooks"

// serverOf is what a span says of where: no path and no query.
func serverOf(u *url.URL) []attribute.KeyValue {
	attrs := []attribute.KeyValue{attribute.String("http.request.method", http.MethodPost), attribute.String("server.address", u.Hostname())}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		if port = 443; u.Scheme == "http" {
			port = 80
		}
	}
	return append(attrs, attribute.Int("server.port", port))
}

func endSpan(span trace.Span, status int, err error) {
	defer span.End()
	if status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	if err == nil {
		return
	}
	kind := "canceled"
	if f := (*failure)(nil); errors.As(err, &f) {
		if kind = f.class; f.status != 0 {
			kind = strconv.Itoa(f.status)
		}
	}
	span.SetAttributes(attribute.String("error.type", kind))
	span.SetStatus(codes.Error, "")
}
