// Package mail sends mail over SMTP. Mail is at least once: a copy carries the Message-ID of the first, which is made
// from the event that asks for it, so that mailboxes and people can tell it from a new one.
package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	netmail "net/mail"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	gomail "github.com/wneessen/go-mail"
)

// Timeouts of one mail, within those of the caller's context.
const (
	connectTimeout = 5 * time.Second
	sendTimeout    = 14 * time.Second
)

// Message is a mail to one person.
type Message struct {
	To     string
	ToName string
	// Subject, Text and HTML say the same in one part more or less; HTML may be empty.
	Subject string
	Text    string
	HTML    string
	// MessageID comes from Sender.MessageID, so that a repeat can be recognised.
	MessageID string
	// CorrelationID and EventID say in the mail's headers what it follows from.
	CorrelationID string
	EventID       uuid.UUID
}

// Sender hands mails to an SMTP server, each over a connection of its own. It is safe for concurrent use.
type Sender struct{ config config }

// NewSender returns the sender for an SMTP_URL. It does not connect.
//
//	smtp://user:password@host:port?from=Shop <shop@example.com>   STARTTLS where the server offers it
//	smtp://…?tls=required   STARTTLS or no mail
//	smtp://…?tls=none       never encrypted, and the password sent as it is
//	smtps://…               TLS from the first byte
func NewSender(smtpURL string) (*Sender, error) {
	c, err := parseURL(smtpURL)
	if err != nil {
		return nil, err
	}
	return &Sender{c}, nil
}

// MessageID is the Message-ID, without the angle brackets, of the mail of a kind that an event asks for.
func (s *Sender) MessageID(eventID uuid.UUID, kind string) string {
	return eventID.String() + "." + kind + "@" + s.config.domain
}

// Send hands the message to the server and returns nil once the server has taken it over. A *RefusedError tells
// whether a later attempt may succeed. No error holds an address.
//
// The context bounds all of it; cancelling it cuts the connection, and the server may then have taken the mail over.
func (s *Sender) Send(ctx context.Context, m Message) error {
	ctx, span := s.startSpan(ctx)
	err := s.send(ctx, m)
	endSpan(span, err)
	return err
}

func (s *Sender) send(ctx context.Context, m Message) error {
	ctx, cancel := context.WithTimeoutCause(ctx, sendTimeout, errors.New("the server took too long"))
	defer cancel()
	msg, err := s.message(m)
	if err != nil {
		return err
	}

	conn, err := s.dial(ctx)
	if err != nil {
		return connectError(ctx, err)
	}
	defer func() { _ = conn.Close() }() // after an orderly QUIT it is closed already
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()

	client, err := gomail.NewClient(s.config.host, s.options(conn)...)
	if err != nil {
		return errors.New("mail: the SMTP client cannot be set up")
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return connectError(ctx, err)
	}
	err = client.SendWithSMTPClient(session, msg)
	_ = client.CloseWithSMTPClient(session) // what the server took over, it keeps, whatever becomes of the QUIT
	if err != nil && !msg.IsDelivered() {
		return sendError(ctx, err)
	}
	return nil
}

// dial connects, and for smtps:// shakes hands.
func (s *Sender) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	address := net.JoinHostPort(s.config.host, strconv.Itoa(s.config.port))
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil || s.config.encryption != implicit {
		return conn, err
	}
	secure := tls.Client(conn, s.config.tls())
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

func (s *Sender) options(conn net.Conn) []gomail.Option {
	options := []gomail.Option{
		gomail.WithPort(s.config.port),
		gomail.WithTimeout(sendTimeout),
		gomail.WithTLSConfig(s.config.tls()),
		gomail.WithoutNoop(),
		gomail.WithDialContextFunc(func(context.Context, string, string) (net.Conn, error) { return conn, nil }),
	}
	switch s.config.encryption {
	case required:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case none:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default: // for implicit too: it makes the client see that the connection is encrypted
		options = append(options, gomail.WithTLSPolicy(gomail.TLSOpportunistic))
	}
	if s.config.user == "" {
		return options
	}
	options = append(options, gomail.WithUsername(s.config.user), gomail.WithPassword(s.config.pass))
	if s.config.encryption == none {
		return append(options, gomail.WithOpportunisticSMTPAuth(gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthSCRAMSHA1,
			gomail.SMTPAuthCramMD5, gomail.SMTPAuthPlainNoEnc, gomail.SMTPAuthLoginNoEnc))
	}
	return append(options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover))
}

// maxAddress is RFC 5321's limit; beyond, an address makes a line that no server need take.
const maxAddress = 254

// ErrInvalidMessage says that a message cannot be a mail: no address that is one, or no text. Trying again is useless.
var ErrInvalidMessage = errors.New("mail: the message has no usable recipient, subject, text or Message-ID")

func (s *Sender) message(m Message) (*gomail.Msg, error) {
	if m.Subject == "" || m.Text == "" || !token(m.MessageID) {
		return nil, ErrInvalidMessage
	}
	to, err := netmail.ParseAddress(m.To)
	if err != nil || to.Name != "" || to.Address != m.To || len(m.To) > maxAddress {
		return nil, ErrInvalidMessage
	}
	msg := gomail.NewMsg()
	msg.FromMailAddress(&s.config.from)
	msg.ToMailAddress(&netmail.Address{Name: displayName(m.ToName), Address: to.Address})
	msg.Subject(m.Subject)
	msg.SetDate()
	msg.SetMessageIDWithValue(m.MessageID)
	if token(m.CorrelationID) {
		msg.SetGenHeader("X-Correlation-ID", m.CorrelationID)
	}
	if m.EventID != uuid.Nil {
		msg.SetGenHeader("X-Event-ID", m.EventID.String())
	}
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetUserAgent("pgoutbox")
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	return msg, nil
}

// displayName is a name that net/mail writes as others read it. Where it has to encode one, it leaves a backslash as it is, which no
// encoded word may have.
func displayName(name string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(name, "\uFFFD"), `\`, "/")
}
