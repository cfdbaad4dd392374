package mail

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/google/uuid"
)

// echoing is a server as they are met outside: it wants a login over TLS and repeats addresses in its refusals.
type echoing struct {
	mu    sync.Mutex
	mails int
	tls   int
	login bool // it knows LOGIN and nothing else, as some do
}

type echoSession struct {
	server *echoing
	conn   *smtp.Conn
	authed bool
}

func (e *echoing) NewSession(c *smtp.Conn) (smtp.Session, error) {
	return &echoSession{server: e, conn: c}, nil
}

func (s *echoSession) AuthMechanisms() []string {
	if s.server.login {
		return []string{sasl.Login}
	}
	return []string{sasl.Plain}
}

func (s *echoSession) Auth(string) (sasl.Server, error) {
	check := func(_, user, password string) error {
		if user != "me" || password != "pw" {
			return smtp.ErrAuthFailed
		}
		s.authed = true
		return nil
	}
	if s.server.login {
		return &loginServer{check: check}, nil
	}
	return sasl.NewPlainServer(check), nil
}

// loginServer asks for the name, and then for the password.
type loginServer struct {
	check func(identity, user, password string) error
	said  []string
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if response != nil {
		l.said = append(l.said, string(response))
	}
	switch len(l.said) {
	case 0:
		return []byte("Username:"), false, nil
	case 1:
		return []byte("Password:"), false, nil
	default:
		return nil, true, l.check("", l.said[0], l.said[1])
	}
}

func (s *echoSession) Mail(string, *smtp.MailOptions) error {
	if !s.authed {
		return smtp.ErrAuthRequired
	}
	return nil
}

func (s *echoSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "canary") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user: " + to}
	}
	return nil
}

func (s *echoSession) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.mails++
	if _, ok := s.conn.TLSConnectionState(); ok {
		s.server.tls++
	}
	return err
}

func (s *echoSession) Reset()        {}
func (s *echoSession) Logout() error { return nil }

// serve starts the server with STARTTLS, or with TLS from the first byte.
func serve(t *testing.T, startTLS, tlsFirst bool) (*echoing, string, *x509.CertPool) {
	t.Helper()
	cert, roots := certificate(t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	backend := &echoing{}
	server := smtp.NewServer(backend)
	server.Domain = "localhost"
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	if startTLS {
		server.TLSConfig = config
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if tlsFirst {
		listener = tls.NewListener(listener, config)
	}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { _ = server.Close(); served.Wait() })
	return backend, address, roots
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func send(t *testing.T, url string, roots *x509.CertPool, to string) error {
	t.Helper()
	sender, err := NewSender(url)
	if err != nil {
		t.Fatal(err)
	}
	sender.config.roots = roots
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return sender.Send(ctx, Message{To: to, Subject: "s", Text: "t", MessageID: sender.MessageID(uuid.Must(uuid.NewV7()), "welcome")})
}

func TestSendEncryptedWithLogin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name               string
		startTLS, tlsFirst bool
		scheme, query      string
		login              bool
	}{
		{"opportunistic", true, false, "smtp", "", false},
		{"required", true, false, "smtp", "?tls=required", false},
		{"implicit", false, true, "smtps", "", false},
		{"by LOGIN alone", true, false, "smtp", "?tls=required", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server, address, roots := serve(t, tt.startTLS, tt.tlsFirst)
			server.login = tt.login
			if err := send(t, tt.scheme+"://me:pw@"+address+tt.query, roots, "ada@example.com"); err != nil {
				t.Fatal(err)
			}
			server.mu.Lock()
			defer server.mu.Unlock()
			if server.mails != 1 || server.tls != 1 {
				t.Errorf("%d mails, %d of them encrypted", server.mails, server.tls)
			}
		})
	}
}

func TestSendKeepsThePasswordFromTheUnencrypted(t *testing.T) {
	t.Parallel()
	server, address, _ := serve(t, false, false)
	for _, query := range []string{"", "?tls=required"} {
		err := send(t, "smtp://me:pw@"+address+query, nil, "ada@example.com")
		var refused *RefusedError
		if !errors.As(err, &refused) || !refused.Temporary {
			t.Errorf("%q: got %#v", query, err)
		}
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if server.mails != 0 {
		t.Error("a mail went out")
	}
}

func TestSendDistrustsAnUnknownCertificate(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"smtp", "smtps"} {
		_, address, _ := serve(t, scheme == "smtp", scheme == "smtps")
		if err := send(t, scheme+"://me:pw@"+address, x509.NewCertPool(), "ada@example.com"); err == nil || IsPermanent(err) {
			t.Errorf("%s: got %v", scheme, err)
		}
	}
}

func TestErrorsNameNobody(t *testing.T) {
	t.Parallel()
	_, address, roots := serve(t, true, false)
	err := send(t, "smtp://me:pw@"+address, roots, "canary@example.com")
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Code != 550 || refused.Temporary || refused.Stage != "RCPT TO" || refused.Enhanced != "5.1.1" {
		t.Fatalf("got %#v", err)
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("the error names the recipient: %v", err)
	}
	err = send(t, "smtp://me:wrong@"+address, roots, "canary@example.com")
	if !errors.As(err, &refused) || refused.Code != 535 || !refused.Temporary || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: got %#v", err)
	}
}
