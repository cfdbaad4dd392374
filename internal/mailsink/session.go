package mailsink

import (
	"errors"
	"io"
	"time"

	"github.com/emersion/go-smtp"
)

// session is one connection's conversation; the server calls it from one goroutine.
type session struct {
	sink *Sink
	from string
	to   []string
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if err := s.sink.refusal(); err != nil {
		return err
	}
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

// Data returns nil, which the server answers with 250, only once the message is on disk.
func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	// Asked again: the mode may have changed since the message began.
	if err := s.sink.refusal(); err != nil {
		return err
	}
	if err := s.sink.keep(envelope{receivedAt: time.Now(), from: s.from, to: s.to}, raw); err != nil {
		s.sink.logger.Error("mail sink cannot keep a message", "error", err)
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "cannot be kept"}
	}
	return nil
}

func (s *session) Reset() { s.from, s.to = "", nil }

func (s *session) Logout() error { return nil }

// refusal is the error with which the present mode refuses a message; nil when it accepts.
func (s *Sink) refusal() error {
	code := s.Mode()
	if code < 400 {
		return nil
	}
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: "refused on request"}
}

// ErrMode says that a number is no mode.
var ErrMode = errors.New("mailsink: the mode must be 0 or 250 (accept) or 400 to 599 (refuse with that code)")

// SetMode makes the sink accept (0 or 250) or refuse every message with an SMTP code (400 to 599). It is kept over
// restarts.
func (s *Sink) SetMode(code int) error {
	if code != 0 && code != 250 && (code < 400 || code > 599) {
		return ErrMode
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.storeMode(code); err != nil {
		return err
	}
	s.mode = code
	return nil
}

// Mode is what SetMode set last; 0 at first.
func (s *Sink) Mode() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mode
}
