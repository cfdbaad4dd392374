package mail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"syscall"

	gomail "github.com/wneessen/go-mail"
)

// RefusedError is a mail that the server did not accept. It holds the server's codes and none of its words: they often
// repeat the recipient's address, and errors are kept in job records and logs.
type RefusedError struct {
	// Stage is how far it came: connect, MAIL FROM, RCPT TO, DATA.
	Stage string
	// Code is the SMTP reply code; 0 when the server said nothing.
	Code int
	// Enhanced is the enhanced status code of RFC 3463, like 4.2.2, where the server gave one.
	Enhanced string
	// Temporary says that a later attempt may succeed: a 4xx answer, a network that failed, and whatever went wrong
	// before there was a mail to refuse, which says nothing against this mail.
	Temporary bool
	// MayBeSent says that the whole mail was handed over and no answer came: the server may have taken it over. A later attempt may be a copy.
	MayBeSent bool
	// Err is the network's error; nil when the server answered.
	Err error
}

func (e *RefusedError) Error() string {
	kind := "permanently"
	if e.Temporary {
		kind = "temporarily"
	}
	switch {
	case e.MayBeSent:
		return fmt.Sprintf("mail: %s failed, and the server may have taken the mail over: %v", e.Stage, e.Err)
	case e.Code == 0:
		return fmt.Sprintf("mail: %s failed: %v", e.Stage, e.Err)
	case e.Enhanced == "":
		return fmt.Sprintf("mail: refused %s at %s: %d", kind, e.Stage, e.Code)
	default:
		return fmt.Sprintf("mail: refused %s at %s: %d %s", kind, e.Stage, e.Code, e.Enhanced)
	}
}

// Unwrap gives the network's error.
func (e *RefusedError) Unwrap() error { return e.Err }

// IsPermanent reports whether err is one that no later attempt can mend.
func IsPermanent(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && !refused.Temporary || errors.Is(err, ErrInvalidMessage)
}

// connectError is what went wrong before there was a mail to refuse.
func connectError(ctx context.Context, err error) *RefusedError {
	refused := &RefusedError{Stage: "connect", Temporary: true}
	var reply *textproto.Error
	if errors.As(err, &reply) {
		refused.Code = reply.Code
		return refused
	}
	refused.Err = harmless(ctx, err)
	return refused
}

// sendError is what became of a mail that was offered.
func sendError(ctx context.Context, err error) *RefusedError {
	refused := &RefusedError{Stage: "send", Temporary: true}
	var sent *gomail.SendError
	if !errors.As(err, &sent) {
		refused.Err = harmless(ctx, err)
		return refused
	}
	switch sent.Reason {
	case gomail.ErrSMTPMailFrom:
		refused.Stage = "MAIL FROM"
	case gomail.ErrSMTPRcptTo:
		refused.Stage = "RCPT TO"
	case gomail.ErrSMTPData, gomail.ErrSMTPDataClose, gomail.ErrWriteContent:
		refused.Stage = "DATA"
	}
	refused.Code, refused.Enhanced = sent.ErrorCode(), sent.EnhancedStatusCode()
	if refused.Code == 0 {
		refused.MayBeSent = sent.Reason == gomail.ErrSMTPDataClose
		refused.Err = harmless(ctx, err)
		return refused
	}
	// 530, 534, 535 and 538 ask for credentials: that is about the configuration and not about this mail.
	switch refused.Code {
	case 530, 534, 535, 538:
	default:
		refused.Temporary = refused.Code < 500
	}
	return refused
}

// harmless reduces an error to what can name nobody.
func harmless(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var op *net.OpError
	var timeout interface{ Timeout() bool }
	for _, known := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, known) {
			return known
		}
	}
	switch {
	case errors.As(err, &op):
		return op
	case errors.As(err, &timeout) && timeout.Timeout():
		return context.DeadlineExceeded
	default:
		return errors.New("the conversation with the server broke off")
	}
}
