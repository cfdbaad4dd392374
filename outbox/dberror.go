package outbox

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// sqlState returns the SQLSTATE of an error of the server, or "".
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// transient reports whether a transaction failed for a reason that says nothing about the event in it: it deadlocked,
// could not be serialised, waited too long, or lost its connection or server.
func transient(err error) bool {
	switch state := sqlState(err); {
	case state == "40001", state == "40P01", state == "55P03", state == "57014", state == "25P03", state == "25P04":
		return true
	case state == "":
	case state[:2] == "08", state[:2] == "53", state[:2] == "57":
		return true
	default:
		return false
	}
	return lostConnection(err)
}

// lostConnection reports whether the client's side of a connection broke.
func lostConnection(err error) bool {
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.As(err, &network) || errors.As(err, &connect) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) ||
		pgconn.Timeout(err) || pgconn.SafeToRetry(err)
}
