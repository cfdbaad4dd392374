package handlers

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/handlers/pages"
	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	headerCorrelationID = "X-Correlation-ID"
	// statusClientGone stands in the log for a request whose client did not wait for the answer.
	statusClientGone = 499
)

// observe is the way of every request: it gives it a correlation id, turns an error or a panic into an answer, and
// writes one log line, with the route's pattern and no datum of the request; whoever counts requests is told the same. Where requests are
// traced, all of that is within its span.
func observe(logger *slog.Logger, spans trace.Tracer, told func(method, route string, status int, took time.Duration)) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			began := time.Now()
			correlate(c)
			span := startSpan(spans, c)
			defer func() { endSpan(span, c) }() // also where a handler hangs up
			header := c.Response().Header()
			header.Set("Cache-Control", "no-store")
			header.Set("X-Content-Type-Options", "nosniff")
			if err := guard(next, c); err != nil {
				c.Error(err)
			}
			took := time.Since(began)
			logRequest(logger, c, took)
			if told != nil {
				told(method(c.Request().Method), route(c), status(c), took)
			}
			return nil
		}
	}
}

// correlate takes the caller's correlation id where it is well formed, and draws one otherwise. What the request appends names the route
// as its producer.
func correlate(c echo.Context) {
	id := c.Request().Header.Get(headerCorrelationID)
	if !outbox.ValidCorrelationID(id) {
		id = newID().String()
	}
	ctx := outbox.WithCorrelationID(c.Request().Context(), id)
	ctx = outbox.WithSource(ctx, method(c.Request().Method)+" "+route(c))
	c.SetRequest(c.Request().WithContext(ctx))
	c.Response().Header().Set(headerCorrelationID, id)
}

// newID is a UUIDv7. It cannot fail: the system's random numbers do not.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// panicError is a panic on its way to the log.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// guard runs the handler and makes a panic an error. http.ErrAbortHandler goes on: it is how a handler hangs up.
func guard(next echo.HandlerFunc, c echo.Context) (err error) {
	defer func() {
		switch r := recover(); r {
		case nil:
		case http.ErrAbortHandler:
			panic(r)
		default:
			err = &panicError{r, debug.Stack()}
		}
	}()
	return next(c)
}

func logRequest(logger *slog.Logger, c echo.Context, took time.Duration) {
	status, level := status(c), slog.LevelInfo
	failure, _ := c.Get(failureKey).(*problem)
	probe := isProbe(c)
	switch {
	case status == statusClientGone:
	case status >= 500 && probe, failure != nil && failure.slug == slugOverloaded:
		level = slog.LevelWarn
	case status >= 500 || failure != nil && failure.status >= 500:
		level = slog.LevelError
	case probe || status < 400 && pages.Quiet(c):
		level = slog.LevelDebug
	}
	ctx := c.Request().Context()
	if !logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", method(c.Request().Method)),
		slog.String("route", route(c)),
		slog.Int("status", status),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.Int64("bytes", c.Response().Size),
		slog.String("correlation_id", outbox.CorrelationID(ctx)),
	}
	if failure != nil {
		attrs = append(attrs, slog.String("problem", failure.slug))
		if failure.cause != nil {
			attrs = append(attrs, slog.String("error", logText(failure.cause)))
		}
		var panicked *panicError
		if errors.As(failure.cause, &panicked) {
			attrs = append(attrs, slog.String("stack", string(panicked.stack)))
		}
	}
	logger.LogAttrs(ctx, level, "request", attrs...)
}

func isProbe(c echo.Context) bool {
	return c.Path() == "/healthz" || c.Path() == "/readyz" || c.Path() == "/metrics"
}

// status is what was answered, or would have been.
func status(c echo.Context) int {
	if clientGone(c) && !c.Response().Committed {
		return statusClientGone
	}
	return c.Response().Status
}

// route is the pattern, which has no ids, of a route that exists.
func route(c echo.Context) string {
	if c.Path() == "" {
		return "unmatched"
	}
	return c.Path()
}

// method keeps whatever a client calls a method out of the log.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}
