package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

func TestEveryAnswerHasACorrelationID(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for _, path := range []string{"/healthz", "/v1/products", "/v1/account", "/nowhere", "/v1/signup"} {
		require.Equal(t, "My-id_1.2", s.call("GET", path, nil, "X-Correlation-ID", "My-id_1.2").header.Get("X-Correlation-ID"), path)
		for _, bad := range []string{"", "a b", "ä", strings.Repeat("x", 129), `"><script>`} {
			id, err := uuid.Parse(s.call("GET", path, nil, "X-Correlation-ID", bad).header.Get("X-Correlation-ID"))
			require.NoError(t, err, path)
			require.EqualValues(t, 7, id.Version())
		}
	}
}

func TestUnknownRoutesAndMethods(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for _, path := range []string{
		"/", "/v1", "/v1/", "/v1/nothing", "/v1/signup/", "/v1/carts/x/y", "/dev/mail", "/dev/payments/charges", "/admin/dlq", "/v1/webhooks/stripe", "//", "/%00",
	} {
		s.problem(s.call("GET", path, nil), 404, "not-found")
	}
	s.problem(s.call("PUT", "/dev/mail/mode", map[string]any{"smtp_code": 451}), 404, "not-found")
	for path, allow := range map[string]string{"/v1/signup": "POST", "/v1/account": "GET", "/v1/sessions/current": "DELETE", "/healthz": "GET"} {
		a := s.call("PATCH", path, nil)
		s.problem(a, 405, "method-not-allowed")
		require.Contains(t, a.header.Get("Allow"), allow)
	}
	require.Contains(t, s.call("GET", "/v1/carts/x/items", nil).header.Get("Allow"), "POST")
}

func TestRequestsLeaveOneLine(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	a := c.call("GET", "/v1/orders/"+uuid.NewString(), nil, "X-Correlation-ID", "the-line")
	s.problem(a, 404, "not-found")
	line := s.log.with(t, `"the-line"`)
	require.Equal(t, "INFO", line["level"])
	require.Equal(t, "GET", line["method"])
	require.Equal(t, "/v1/orders/:order_id", line["route"])
	require.EqualValues(t, 404, line["status"])
	require.EqualValues(t, len(a.raw), line["bytes"])
	require.Contains(t, line, "duration_ms")
	require.Equal(t, "not-found", line["problem"])
	require.Equal(t, 1, strings.Count(s.log.all(), `"the-line"`))
	s.call("GET", "/nowhere/at/all", nil, "X-Correlation-ID", "lost")
	require.Equal(t, "unmatched", s.log.with(t, `"lost"`)["route"])
}

// Whoever counts requests is told of patterns and known methods only, whatever clients make up.
func TestRequestsAreCountedByPattern(t *testing.T) {
	t.Parallel()
	told := make(chan string, 10)
	s := newShop(t, func(cfg *handlers.Config) {
		cfg.Observe = func(method, route string, status int, took time.Duration) {
			require.Positive(t, took)
			told <- fmt.Sprint(method, " ", route, " ", status)
		}
	})
	s.call("GET", "/v1/orders/"+uuid.NewString(), nil)
	require.Equal(t, "GET /v1/orders/:order_id 401", <-told)
	s.call("BREW", "/"+uuid.NewString(), nil)
	require.Equal(t, "other unmatched 404", <-told)
	s.call("PATCH", "/v1/signup", nil)
	require.Equal(t, "PATCH /v1/signup 405", <-told)
}

func TestPanicsAreErrors(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(cfg *handlers.Config) {
		cfg.Ready = func(context.Context) error { panic("on purpose") }
	})
	a := s.call("GET", "/readyz", nil, "X-Correlation-ID", "boom")
	s.problem(a, 500, "internal")
	require.NotContains(t, a.raw, "on purpose")
	line := s.log.with(t, `"boom"`)
	require.Contains(t, line["error"], "on purpose")
	require.Contains(t, line["stack"], "observe_test.go")
	require.Equal(t, 200, s.call("GET", "/healthz", nil).status)
}

func TestReadinessNamesWhatFailed(t *testing.T) {
	t.Parallel()
	var failure error
	s := newShop(t, func(cfg *handlers.Config) {
		cfg.Ready = func(ctx context.Context) error {
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > 2*time.Second {
				return errors.New("no bound")
			}
			return failure
		}
	})
	require.Equal(t, 200, s.call("GET", "/readyz", nil).status)
	failure = errors.New("migrations: the schema is not up to date")
	a := s.call("GET", "/readyz", nil)
	s.problem(a, 503, "unavailable")
	require.Equal(t, failure.Error(), a.text("detail"))
	require.NotEmpty(t, a.header.Get("Retry-After"))
	failure = &net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 5432}, Err: errors.New("refused")}
	a = s.call("GET", "/readyz", nil, "X-Correlation-ID", "dial")
	s.problem(a, 503, "unavailable")
	require.Contains(t, a.text("detail"), "database")
	require.NotContains(t, a.raw, "10.0.0.1")
	require.Equal(t, "WARN", s.log.with(t, `"dial"`)["level"])
	require.Equal(t, 200, s.call("GET", "/healthz", nil).status)
}

func TestReadyWithWarnings(t *testing.T) {
	t.Parallel()
	var warnings []string
	s := newShop(t, func(cfg *handlers.Config) {
		cfg.Ready = func(context.Context) error { return nil }
		cfg.Warnings = func(ctx context.Context) []string {
			if _, ok := ctx.Deadline(); !ok {
				return []string{"no bound"}
			}
			return warnings
		}
	})
	require.JSONEq(t, `{"status":"ready"}`, s.call("GET", "/readyz", nil).raw)
	warnings = []string{"one thing", "another"}
	a := s.call("GET", "/readyz", nil)
	require.Equal(t, 200, a.status)
	require.JSONEq(t, `{"status":"ready","warnings":["one thing","another"]}`, a.raw)
}

// A database that is away is not the client's fault, and not a bug: 503, and an error in the log.
func TestDatabaseAwayIsUnavailable(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, config *pgxpool.Config){
		"no server": func(_ *testing.T, config *pgxpool.Config) {
			config.ConnConfig.Host, config.ConnConfig.Port = "127.0.0.1", 1
		},
		"no such database": func(_ *testing.T, config *pgxpool.Config) {
			config.ConnConfig.Database = "gone"
		},
		"a statement that takes too long": func(t *testing.T, config *pgxpool.Config) {
			// It waits for a lock that somebody holds.
			conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
			require.NoError(t, err)
			_, err = conn.Exec(t.Context(), `begin; lock table products`)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
			config.ConnConfig.RuntimeParams["statement_timeout"] = "50"
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := testdb.Pool(t).Config()
			spoil(t, config)
			broken, err := pgxpool.NewWithConfig(t.Context(), config)
			require.NoError(t, err)
			t.Cleanup(broken.Close)
			s := newShop(t, func(cfg *handlers.Config) { cfg.Pool = broken })
			a := s.call("GET", "/v1/products", nil, "X-Correlation-ID", "away")
			s.problem(a, 503, "unavailable")
			require.Equal(t, "1", a.header.Get("Retry-After"))
			require.Equal(t, "ERROR", s.log.with(t, `"away"`)["level"])
		})
	}
}

// Requests that find no free connection wait, but not for ever.
func TestEmptyPoolIsUnavailable(t *testing.T) {
	t.Parallel()
	small := testdb.SmallPool(t, testdb.Pool(t), 1)
	s := newShop(t, func(cfg *handlers.Config) { cfg.Pool = small })
	conn, err := small.Acquire(t.Context())
	require.NoError(t, err)
	s.problem(s.call("GET", "/v1/products", nil), 503, "unavailable")
	conn.Release()
	require.Equal(t, 200, s.call("GET", "/v1/products", nil).status)
}

func TestServerTerminationIsUnavailable(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	cart := c.cart("moka-pot", 1)
	tx, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select from carts for update`)
	require.NoError(t, err)
	waiting := make(chan answer, 1)
	go func() {
		a, _ := s.try(t.Context(), "POST", "/v1/carts/"+cart+"/checkout", visa(), "Authorization", "Bearer "+c.token)
		waiting <- a
	}()
	require.Eventually(t, func() bool {
		return value[bool](s, `select coalesce(bool_or(pg_terminate_backend(pid)), false) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`)
	}, 10*time.Second, 5*time.Millisecond)
	s.problem(<-waiting, 503, "unavailable") // 57P01
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, 202, c.call("POST", "/v1/carts/"+cart+"/checkout", visa()).status)
}

// A client that leaves ends its wait, and is no error of ours.
func TestClientThatLeaves(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = s.try(ctx, "GET", "/v1/account", nil, "Authorization", "Bearer "+c.token, "Prefer", "wait=30", "X-Correlation-ID", "leaver")
	}()
	s.somebodyWaits()
	leave()
	<-gone
	line := s.log.with(t, `"leaver"`)
	require.EqualValues(t, 499, line["status"])
	require.Equal(t, "INFO", line["level"])
}

func TestShutdownAnswersWhoWaits(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	server := handlers.NewServer(handlers.NewAPI(handlers.Config{Pool: s.pool, Logger: slog.New(slog.DiscardHandler)}))
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(socket) }()
	s.url = "http://" + socket.Addr().String()
	waiting := make(chan answer, 1)
	go func() {
		a, _ := s.try(t.Context(), "GET", "/v1/account", nil, "Authorization", "Bearer "+c.token, "Prefer", "wait=30")
		waiting <- a
	}()
	s.somebodyWaits()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, server.Shutdown(ctx))
	a := <-waiting
	require.Equal(t, 200, a.status, a.raw)
	require.Equal(t, "setting_up", a.text("plan", "status"))
	require.ErrorIs(t, <-served, http.ErrServerClosed)
}

func TestServerHasEveryTimeout(t *testing.T) {
	t.Parallel()
	s := handlers.NewServer(echo.New())
	require.Positive(t, s.ReadHeaderTimeout)
	require.Positive(t, s.ReadTimeout)
	require.Greater(t, s.WriteTimeout, 30*time.Second+s.ReadTimeout)
	require.Positive(t, s.IdleTimeout)
	require.Positive(t, s.MaxHeaderBytes)
}
