package handlers_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// TestMain also fails where all tests ran, and openapi.yaml has an answer that none has seen.
func TestMain(m *testing.M) {
	handlers.HashCheaply()
	code := testdb.Main(m)
	if code == 0 && wholeRun() && !checkCoverage() {
		code = 1
	}
	os.Exit(code)
}

// shop is the API on a database of its own. No workers run: what follows from an event, a test does itself.
type shop struct {
	t    testing.TB
	pool *pgxpool.Pool
	url  string
	log  *logLines
}

func newShop(t testing.TB, change ...func(*handlers.Config)) *shop {
	t.Helper()
	return newShopOn(t, testdb.Pool(t), change...)
}

// newShopOn is another process on the database.
func newShopOn(t testing.TB, pool *pgxpool.Pool, change ...func(*handlers.Config)) *shop {
	t.Helper()
	s := &shop{t: t, pool: pool, log: &logLines{}}
	cfg := handlers.Config{Pool: s.pool, Logger: slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, f := range change {
		f(&cfg)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = handlers.NewServer(watch(t, "api", handlers.NewAPI(cfg)))
	server.Start()
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// logLines keeps what was logged.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	return len(line), nil
}

func (l *logLines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

// with waits for the line that has the text: it is written after the answer was sent.
func (l *logLines) with(t *testing.T, text string) map[string]any {
	t.Helper()
	var found map[string]any
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, line := range l.lines {
			if strings.Contains(line, text) {
				return json.Unmarshal([]byte(line), &found) == nil
			}
		}
		return false
	}, 10*time.Second, 5*time.Millisecond, text)
	return found
}

// customer is somebody with a session.
type customer struct {
	*shop
	id    uuid.UUID
	email string
	token string
}

// customer makes one without the work of hashing a password: nobody can log in as them.
func (s *shop) customer() *customer {
	s.t.Helper()
	raw := make([]byte, 32)
	_, err := rand.Read(raw)
	require.NoError(s.t, err)
	c := &customer{s, uuid.New(), uuid.NewString() + "@example.com", base64.RawURLEncoding.EncodeToString(raw)}
	s.exec(`insert into users (id, email, name, password_hash, signup_event_id) values ($1, $2, 'A customer', 'none', $3)`, c.id, c.email, uuid.New())
	hash := sha256.Sum256([]byte(c.token))
	s.exec(`insert into sessions (token_hash, user_id, expires_at) values ($1, $2, now() + interval '1 day')`, hash[:], c.id)
	return c
}

// somebodyWaits returns once a request in this database waits for what an account's plan is about to be. Other tests' databases are on the
// same server.
func (s *shop) somebodyWaits() {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		return value[bool](s, `select exists (select from pg_stat_activity
			where datname = current_database() and query like '%SubscriptionsStarted%' and pid <> pg_backend_pid())`)
	}, 10*time.Second, 5*time.Millisecond)
}

// somebodyIsLockedOut returns once a request in this database waits for a lock.
func (s *shop) somebodyIsLockedOut() {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		return value[bool](s, `select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')`)
	}, 10*time.Second, 5*time.Millisecond)
}

// cart makes a cart with one line for each pair of sku and quantity.
func (c *customer) cart(items ...any) string {
	c.t.Helper()
	created := c.call("POST", "/v1/carts", nil)
	require.Equal(c.t, 201, created.status, created.raw)
	for i := 0; i < len(items); i += 2 {
		added := c.call("POST", "/v1/carts/"+created.text("cart_id")+"/items", map[string]any{"sku": items[i], "quantity": items[i+1]})
		require.Equal(c.t, 200, added.status, added.raw)
	}
	return created.text("cart_id")
}

func (c *customer) call(method, path string, body any, header ...string) answer {
	c.t.Helper()
	return c.shop.call(method, path, body, append([]string{"Authorization", "Bearer " + c.token}, header...)...)
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func (a answer) at(path ...string) any {
	var at any = a.body
	for _, name := range path {
		fields, _ := at.(map[string]any)
		at = fields[name]
	}
	return at
}

func (a answer) text(path ...string) string {
	s, _ := a.at(path...).(string)
	return s
}

// pointers are the fields that a problem names.
func (a answer) pointers() []string {
	all := []string{}
	errs, _ := a.body["errors"].([]any)
	for _, e := range errs {
		fields, _ := e.(map[string]any)
		pointer, _ := fields["pointer"].(string)
		all = append(all, pointer)
	}
	return all
}

// call makes a request. A string is a body as it is; nil is none.
func (s *shop) call(method, path string, body any, header ...string) answer {
	s.t.Helper()
	a, err := s.try(s.t.Context(), method, path, body, header...)
	require.NoError(s.t, err)
	return a
}

// try is call for other goroutines than the test's.
func (s *shop) try(ctx context.Context, method, path string, body any, header ...string) (answer, error) {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}
		reader = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, reader)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
		if header[i] == "Content-Type" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	raw, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, header: res.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.body)
	return a, nil
}

// problem checks that the answer is a problem document of the kind, which names the fields.
func (s *shop) problem(a answer, status int, slug string, pointers ...string) {
	s.t.Helper()
	require.Equal(s.t, status, a.status, a.raw)
	require.Equal(s.t, "application/problem+json", a.header.Get("Content-Type"), a.raw)
	require.Equal(s.t, slug, a.text("type"), a.raw)
	require.EqualValues(s.t, status, a.body["status"], a.raw)
	require.Equal(s.t, a.header.Get("X-Correlation-ID"), a.text("correlation_id"), a.raw)
	require.NotEmpty(s.t, a.text("title"), a.raw)
	if len(pointers) > 0 {
		require.Equal(s.t, pointers, a.pointers(), a.raw)
	}
}

func (s *shop) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.pool.Exec(s.t.Context(), sql, args...)
	require.NoError(s.t, err)
}

// value is the one value of a query.
func value[T any](s *shop, sql string, args ...any) (v T) {
	s.t.Helper()
	require.NoError(s.t, s.pool.QueryRow(s.t.Context(), sql, args...).Scan(&v))
	return v
}

// events is how many are in the outbox; nothing takes them out here.
func (s *shop) events() int { s.t.Helper(); return value[int](s, `select count(*) from outbox`) }

// event is the last one of a key.
type event struct {
	id, eventType, correlationID string
	data                         map[string]any
}

func (s *shop) lastEvent(key string) (e event) {
	s.t.Helper()
	require.NoError(s.t, s.pool.QueryRow(s.t.Context(),
		`select id, type, correlation_id, data from outbox where key = $1 order by seq desc limit 1`, key).
		Scan(&e.id, &e.eventType, &e.correlationID, &e.data))
	return e
}

// together runs n calls at the same time and returns their answers.
func together(t *testing.T, n int, call func(i int) (answer, error)) []answer {
	t.Helper()
	answers, errs := make([]answer, n), make([]error, n)
	var ready, done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			answers[i], errs[i] = call(i)
		})
	}
	done.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	return answers
}
