// Package mailsink is an SMTP server that keeps what it is sent: the mail server of a development machine. A message
// that it accepted is on disk before the sender hears so, and survives whatever kills the process.
package mailsink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/net/netutil"
)

// Limits of the server.
const (
	maxMessageBytes = 1 << 20
	maxRecipients   = 50
	maxConnections  = 128
	idleTimeout     = 30 * time.Second
	// closeGrace is how long Close waits for handlers whose connections it has cut.
	closeGrace = 5 * time.Second
)

// Sink is a running server. It is safe for concurrent use.
type Sink struct {
	dir    string
	url    string
	logger *slog.Logger
	server *smtp.Server
	conns  *tracker
	served chan struct{} // closed when the accept loop ended

	mu       sync.RWMutex
	messages []Message // oldest first
	mode     int

	closing  sync.Once
	closeErr error
}

// Start loads what is kept under dir, which it makes when need be, and serves SMTP on a free port of 127.0.0.1. The
// context bounds the start alone; the server runs until Close.
func Start(ctx context.Context, dir string, logger *slog.Logger) (*Sink, error) {
	s := &Sink{dir: dir, logger: logger, served: make(chan struct{})}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("mailsink: %w", err)
	}
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("mailsink: load %s: %w", filepath.Base(dir), err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("mailsink: %w", err)
	}
	s.url = fmt.Sprintf("smtp://%s?tls=none&from=shop@example.com", listener.Addr())
	s.conns = &tracker{Listener: netutil.LimitListener(listener, maxConnections), open: map[net.Conn]struct{}{}}

	s.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{sink: s}, nil }))
	s.server.Domain = "localhost"
	s.server.MaxMessageBytes = maxMessageBytes
	s.server.MaxRecipients = maxRecipients
	s.server.ReadTimeout = idleTimeout
	s.server.WriteTimeout = idleTimeout
	s.server.EnableSMTPUTF8 = true
	s.server.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelDebug)
	go func() {
		defer close(s.served)
		if err := s.server.Serve(s.conns); !errors.Is(err, net.ErrClosed) {
			logger.Error("mail sink stopped", "error", err)
		}
	}()
	return s, nil
}

// URL is the SMTP_URL that reaches the sink.
func (s *Sink) URL() string { return s.url }

// Messages are what was accepted, newest last.
func (s *Sink) Messages() []Message {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]Message{}, s.messages...)
}

// Close stops taking mails, lets those under way end until ctx does, then cuts them off. When it returns, nothing is
// written any more. A further call waits for the first and returns what it returned.
func (s *Sink) Close(ctx context.Context) error {
	s.closing.Do(func() { s.closeErr = s.close(ctx) })
	return s.closeErr
}

func (s *Sink) close(ctx context.Context) error {
	// The listener first, and by ourselves: the server closes only those that it has begun to serve, and waits only
	// for connections that it has seen.
	if err := s.conns.Close(); err != nil {
		return fmt.Errorf("mailsink: %w", err)
	}
	<-s.served
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		_ = s.server.Shutdown(context.WithoutCancel(ctx)) // it ends with the last connection
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	s.conns.cut()
	late := time.NewTimer(closeGrace)
	defer late.Stop()
	select {
	case <-idle:
		return nil
	case <-late.C:
		return errors.New("mailsink: a connection did not end")
	}
}

// tracker knows the open connections of a listener, so that they can be cut.
type tracker struct {
	net.Listener
	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func (t *tracker) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[conn] = struct{}{}
	return &tracked{Conn: conn, tracker: t}, nil
}

func (t *tracker) cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for conn := range t.open {
		_ = conn.Close()
	}
}

type tracked struct {
	net.Conn
	tracker *tracker
}

func (c *tracked) Close() error {
	c.tracker.mu.Lock()
	delete(c.tracker.open, c.Conn)
	c.tracker.mu.Unlock()
	return c.Conn.Close()
}
