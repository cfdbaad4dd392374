package payments

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"github.com/stripe/stripe-go/v85"
)

// RefusedError is a request that Stripe refused without doing anything: a wrong key, a parameter it does not take.
// It names what an operator can look up, and repeats no text of Stripe's, which may quote keys and customers.
type RefusedError struct {
	Op        string
	HTTP      int
	Type      string
	Code      string
	RequestID string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("payments: %s: stripe refused it: http %d, type %q, code %q, request %q", e.Op, e.HTTP, e.Type, e.Code, e.RequestID)
}

// stripeError says what may be concluded from an error of stripe-go. What is not certainly harmless is unknown.
func stripeError(op string, err error) error {
	var answer *stripe.Error
	if !errors.As(err, &answer) {
		if neverSent(err) {
			return &UnavailableError{Op: op, Err: cause(err)}
		}
		return &UnknownError{Op: op, Err: cause(err)}
	}
	refused := &RefusedError{
		Op: op, HTTP: answer.HTTPStatusCode, Type: plainOr(string(answer.Type)), Code: plainOr(string(answer.Code)), RequestID: plainOr(answer.RequestID),
	}
	switch {
	case answer.Type == stripe.ErrorTypeIdempotency:
		return fmt.Errorf("%w: %w", ErrKeyReused, refused)
	case answer.HTTPStatusCode == http.StatusNotFound && answer.Code == stripe.ErrorCodeResourceMissing:
		return ErrNotFound
	case answer.HTTPStatusCode == http.StatusTooManyRequests:
		return &UnavailableError{Op: op, Err: refused}
	case answer.HTTPStatusCode == http.StatusConflict || answer.HTTPStatusCode >= 500:
		// 409: another request under the same key is under way, and how that ends is not known.
		return &UnknownError{Op: op, Err: refused}
	default:
		return refused
	}
}

// plainOr is s, or a sign for what is no name that an operator could look up.
func plainOr(s string) string {
	if plain(s) {
		return s
	}
	return "?"
}

// neverSent reports whether no connection came about.
func neverSent(err error) bool {
	var dial *net.OpError
	var dns *net.DNSError
	return errors.As(err, &dial) && dial.Op == "dial" || errors.As(err, &dns)
}

// cause reduces a transport's error to what is safe to keep: an unreadable answer's text may hold anything.
func cause(err error) error {
	var op *net.OpError
	for _, known := range []error{
		context.DeadlineExceeded, context.Canceled, io.ErrUnexpectedEOF, io.EOF,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return context.DeadlineExceeded
	case errors.As(err, &op):
		return op
	default:
		return fmt.Errorf("no readable answer (%T)", err)
	}
}

// invalidMethod reports whether the payment method's name is none that Stripe knows.
func invalidMethod(err error) bool {
	var answer *stripe.Error
	return errors.As(err, &answer) && answer.Type == stripe.ErrorTypeInvalidRequest &&
		answer.Param == "payment_method" && answer.HTTPStatusCode < 500
}

// declineCode is the most exact reason that the error gives.
func declineCode(err *stripe.Error) string {
	switch {
	case err == nil:
		return "declined"
	case err.DeclineCode != "" && plain(string(err.DeclineCode)):
		return string(err.DeclineCode)
	case err.Code != "" && plain(string(err.Code)):
		return string(err.Code)
	default:
		return "declined"
	}
}
