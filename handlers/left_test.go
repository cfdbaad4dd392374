package handlers_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// signedIn are the operators' pages, with River's UI behind them, and the cookie of a session.
func signedIn(t *testing.T, log *logLines, river http.Handler) (e *echo.Echo, cookie *http.Cookie) {
	t.Helper()
	pool := testdb.Pool(t)
	e = handlers.NewAdmin(handlers.AdminConfig{
		Config:   handlers.Config{Pool: pool, Logger: slog.New(slog.NewJSONHandler(log, nil))},
		Operator: outbox.NewOperator(pool, idleJobs{}, "", nil), Tokens: map[string]string{operatorToken: "anna"}, River: river,
	})
	req := httptest.NewRequest(http.MethodPost, "/admin/ui/login", strings.NewReader(url.Values{"token": {operatorToken}}.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer := httptest.NewRecorder()
	e.ServeHTTP(answer, req)
	require.Len(t, answer.Result().Cookies(), 1)
	return e, answer.Result().Cookies()[0]
}

// Who leaves before a page is there has broken nothing: there is no page for nobody, and no error in the log.
func TestPageThatIsLeftIsNoError(t *testing.T) {
	t.Parallel()
	log := &logLines{}
	asked := make(chan error, 1)
	e, cookie := signedIn(t, log, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Context().Err() }))
	for _, path := range []string{"/admin/ui", "/admin/ui/consumers", "/admin/ui/letters", "/admin/ui/trace/x", "/admin/ui/audit"} {
		left, leave := context.WithCancel(t.Context())
		leave()
		req := httptest.NewRequest(http.MethodGet, path, nil).WithContext(left)
		req.AddCookie(cookie)
		answer := httptest.NewRecorder()
		e.ServeHTTP(answer, req)
		require.Empty(t, answer.Body.String(), path)
		require.NotContains(t, log.all(), `"level":"ERROR"`, path)
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	req := httptest.NewRequest(http.MethodGet, "/admin/river/api/queues", nil).WithContext(left)
	req.AddCookie(cookie)
	e.ServeHTTP(httptest.NewRecorder(), req)
	require.NoError(t, <-asked, "River's UI ends what it has begun")
}

// River's UI is not asked for what can be nobody's name: it would answer that something of its own broke.
func TestRiverUIIsAskedForNamesOnly(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	e, cookie := signedIn(t, &logLines{}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.String() }))
	for path, status := range map[string]int{
		"/admin/river/a%91b": 404, "/admin/river/a%00b": 404, "/admin/river/api/jobs?kinds=%ff": 404, "/admin/river/api/jobs?kinds=%00": 404, "/admin/river/api/jobs?%zz": 404,
		"/admin/river/api/jobs?kinds=%C3%A4": 200,
	} {
		req := httptest.NewRequest(http.MethodGet, path, nil)
		req.AddCookie(cookie)
		answer := httptest.NewRecorder()
		e.ServeHTTP(answer, req)
		require.Equal(t, status, answer.Code, path)
	}
	require.Equal(t, "/admin/river/api/jobs?kinds=%C3%A4", <-asked)
	require.Empty(t, asked)
}
