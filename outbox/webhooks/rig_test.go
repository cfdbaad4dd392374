package webhooks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
	"github.com/pgoutbox/pgoutbox/workers"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

var anna = outbox.Action{Actor: "anna", Reason: "a test"}

// rig is a database with a store, whose endpoints may be on this machine.
type rig struct {
	t     *testing.T
	pool  *pgxpool.Pool
	op    *outbox.Operator
	store *webhooks.Store
	log   *logged
}

func newRig(t *testing.T) *rig {
	t.Helper()
	pool := testdb.Pool(t)
	jobs, err := workers.NewJobs(pool, "")
	require.NoError(t, err)
	r := &rig{t: t, pool: pool, op: outbox.NewOperator(pool, jobs, "", nil), log: &logged{}}
	r.store = r.another()
	return r
}

// another is a store as another process has it.
func (r *rig) another() *webhooks.Store {
	return webhooks.New(r.pool, r.op, "", webhooks.Options{
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Timeout: time.Minute, Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	})
}

// work starts workers that retry soon.
func (r *rig) work(opts ...outbox.Option) { r.workWith(workers.Config{}, opts...) }

func (r *rig) workWith(cfg workers.Config, opts ...outbox.Option) {
	r.t.Helper()
	cfg.Poll, cfg.Logger = 20*time.Millisecond, slog.New(slog.NewTextHandler(r.log, nil))
	cfg.Consumers = func(ctx context.Context) (*outbox.Registry, error) {
		reg, err := r.store.Consumers(ctx)
		if err != nil {
			return nil, err
		}
		return reg.With(append(opts, outbox.Backoff(10*time.Millisecond, 100*time.Millisecond))...), nil
	}
	w, err := workers.New(r.pool, outbox.NewRegistry(), cfg)
	require.NoError(r.t, err)
	require.NoError(r.t, w.Start(r.t.Context()))
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		require.NoError(r.t, w.Stop(ctx))
	})
}

func (r *rig) create(name, url string, types ...string) (secret string) {
	r.t.Helper()
	_, secret, err := r.store.Create(r.t.Context(), webhooks.NewEndpoint{Name: name, URL: url, Types: types}, anna)
	require.NoError(r.t, err)
	return secret
}

func (r *rig) get(name string) webhooks.Endpoint {
	r.t.Helper()
	e, err := r.store.Get(r.t.Context(), name)
	require.NoError(r.t, err)
	return e
}

type note struct {
	N int `json:"n"`
}

func (r *rig) append(eventType, key string, ns ...int) (ids []string) {
	r.t.Helper()
	for _, n := range ns {
		require.NoError(r.t, outbox.InTx(r.t.Context(), r.pool, func(tx pgx.Tx) error {
			id, err := outbox.Append(r.t.Context(), tx, outbox.Event{Type: eventType, Key: key, Data: note{n}})
			ids = append(ids, id.String())
			return err
		}))
	}
	return ids
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	_, err := r.pool.Exec(r.t.Context(), sql, args...)
	require.NoError(r.t, err, sql)
}

func (r *rig) holds(query string, args ...any) {
	r.t.Helper()
	require.True(r.t, one[bool](r, query, args...), query)
}

func (r *rig) until(query string, args ...any) {
	r.t.Helper()
	// Null is not yet, and no error: that would end the wait's goroutine, and nobody would ask again.
	yes := func() bool { v := one[*bool](r, query, args...); return v != nil && *v }
	require.Eventually(r.t, yes, 2*time.Minute, 20*time.Millisecond, query)
}

func one[T any](r *rig, query string, args ...any) (v T) {
	r.t.Helper()
	require.NoError(r.t, r.pool.QueryRow(r.t.Context(), query, args...).Scan(&v), query)
	return v
}

// agrees requires every event to be in exactly one place.
func (r *rig) agrees() {
	r.t.Helper()
	report, err := r.op.Check(r.t.Context())
	require.NoError(r.t, err)
	require.Empty(r.t, report.Problems)
}

// logged keeps what is logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// got is a delivery as a receiver gets it.
type got struct {
	ID, Type, Subject, Sequence string
	Data                        note
	signatures                  string
	traceparent                 string
	status                      int // as it was answered
}

// receiver is an endpoint that keeps what it gets.
type receiver struct {
	t   *testing.T
	url string

	mu      sync.Mutex
	secrets []string // by one of which each delivery must be signed; none: they are not looked at
	answer  func(w http.ResponseWriter, g got) int
	all     []got
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	rec := &receiver{t: t, answer: func(http.ResponseWriter, got) int { return 200 }}
	srv := httptest.NewServer(rec)
	t.Cleanup(srv.Close)
	rec.url = srv.URL
	return rec
}

func (rec *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	g := got{signatures: r.Header.Get("webhook-signature"), traceparent: r.Header.Get("traceparent")}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	verified := len(rec.secrets) == 0
	for _, secret := range rec.secrets {
		hook, err := standardwebhooks.NewWebhook(secret)
		verified = verified || err == nil && hook.Verify(body, r.Header) == nil
	}
	if err := json.Unmarshal(body, &g); err != nil || !verified || r.Header.Get("webhook-id") != g.ID {
		rec.t.Errorf("not what was signed: %v, %s", err, body)
	}
	g.status = rec.answer(w, g)
	w.WriteHeader(g.status)
	_, _ = io.WriteString(w, "canary-answer")
	rec.all = append(rec.all, g)
}

func (rec *receiver) answers(how func(w http.ResponseWriter, g got) int) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.answer = how
}

// taken are the deliveries that were answered with success.
func (rec *receiver) taken() []got {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(rec.all), func(g got) bool { return g.status >= 300 })
}

// of are the numbers that were taken of a key, in their order.
func (rec *receiver) of(key string) (ns []int) {
	for _, g := range rec.taken() {
		if g.Subject == key {
			ns = append(ns, g.Data.N)
		}
	}
	return ns
}

func (rec *receiver) calls() int {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return len(rec.all)
}

func (rec *receiver) takes(n int) {
	rec.t.Helper()
	require.Eventually(rec.t, func() bool { return len(rec.taken()) >= n }, 2*time.Minute, 20*time.Millisecond)
}

// received is an event as a consumer's handler gets it.
func received(name string) outbox.Received[json.RawMessage] {
	return outbox.Received[json.RawMessage]{
		ID: uuid.Must(uuid.NewV7()), Type: "note.taken", Key: "k", Data: json.RawMessage(`{"n":1}`), Consumer: webhooks.ConsumerPrefix + name, Attempt: 1, SchemaVersion: 1,
	}
}
