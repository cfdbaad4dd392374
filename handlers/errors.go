package handlers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	problemType = "application/problem+json"
	failureKey  = "failure"
)

// writeError is the one place where an error becomes an answer. It leaves the problem for the request's log line.
func writeError(err error, c echo.Context) {
	p := problemOf(err)
	c.Set(failureKey, p)
	if c.Response().Committed || clientGone(c) && !p.unread {
		return
	}
	document, err := p.document(outbox.CorrelationID(c.Request().Context()))
	if err != nil {
		p = internalError(fmt.Errorf("encode a problem: %w", err))
		c.Set(failureKey, p)
		c.Response().WriteHeader(p.status)
		return
	}
	for name, value := range p.header {
		c.Response().Header().Set(name, value)
	}
	_ = c.Blob(p.status, problemType, append(document, '\n')) // a client that does not read it has left
}

// clientGone reports whether nobody waits for the answer any more.
func clientGone(c echo.Context) bool {
	return errors.Is(c.Request().Context().Err(), context.Canceled)
}

// problemOf maps errors of every kind. What is not known here is ours: 500.
func problemOf(err error) *problem {
	var p *problem
	var refused *echo.HTTPError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &refused):
		return routerProblem(refused)
	case isUnavailable(err):
		p = unavailable("the database cannot be reached, or is busy; nothing was changed")
		p.cause = err
		return p
	default:
		return internalError(err)
	}
}

// routerProblem is for what the router refuses before a handler is reached.
func routerProblem(err *echo.HTTPError) *problem {
	switch err.Code {
	case http.StatusNotFound:
		return notFound("route")
	case http.StatusMethodNotAllowed:
		return &problem{
			status: err.Code, slug: "method-not-allowed", title: "The route has no such method",
			detail: "the header Allow has those that it has",
		}
	default:
		return internalError(err)
	}
}

// isUnavailable reports whether the database is away, overloaded, restarting or a standby: states that pass, and that
// no client caused.
func isUnavailable(err error) bool {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return true // whatever the server had against it
	}
	if state := sqlState(err); state != "" {
		switch state {
		case "40001", "40P01", // serialisation, deadlock
			"55P03", "57014", "25P03", "25P04", // our own timeouts
			"25006": // read-only: a failover is under way
			return true
		}
		switch state[:2] {
		case "08", "53", "57":
			return true
		}
		return false
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) || pgconn.SafeToRetry(err)
}

// sqlState returns the SQLSTATE of an error of the server, or "".
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// logText is what of an error may be in a log. The server repeats values in messages about data, so of those only the
// code remains.
func logText(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && len(pg.Code) == 5 && pg.Code[:2] == "22" {
		return fmt.Sprintf("the database refused a value (SQLSTATE %s, %s)", pg.Code, pg.Routine)
	}
	return err.Error()
}
