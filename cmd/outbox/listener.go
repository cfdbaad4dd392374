package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/pgoutbox/pgoutbox/handlers"
)

// listener is an HTTP server on its socket.
type listener struct {
	server *http.Server
	addr   net.Addr
}

func (s *service) listen(name, addr string, handler http.Handler) (*listener, error) {
	socket, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &listener{server: handlers.NewServer(handler), addr: socket.Addr()}
	connections := handlers.LimitConnections(l.server, s.mostConnections(name))
	if err := s.metrics.Connections(name, connections); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	go func() {
		if err := l.server.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("serve %s: %w", addr, err)
		}
	}()
	return l, nil
}

const (
	leastConnections = 16
	// fewFiles is how many files a process may have open where nobody says.
	fewFiles = 1024
)

// mostConnections leaves files, of those that the process may open, to the database, mails and payments: a connection that is taken without one
// left for them is of no use to anybody.
func (s *service) mostConnections(listener string) int {
	switch {
	case listener == "admin":
		return max(openFiles()/16, leastConnections)
	case s.cfg.MaxConnections > 0:
		return s.cfg.MaxConnections
	}
	return max(openFiles()*3/4, leastConnections)
}

func (l *listener) close(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), drainHTTP)
	defer cancel()
	if err := l.server.Shutdown(ctx); err != nil {
		log.Warn("requests cut off", "error", err)
		_ = l.server.Close()
	}
}
