package e2e

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/mailsink"
)

// mailServer is a mail server that can be stopped and come back at the same address: a door in front of a sink.
type mailServer struct {
	t    *testing.T
	sink *mailsink.Sink
	addr string // of the door

	mu   sync.Mutex
	door net.Listener // nil while it is stopped
	open sync.WaitGroup
}

// newMailServer is one that is stopped.
func newMailServer(t *testing.T) *mailServer {
	t.Helper()
	sink, err := mailsink.Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sink.Close(context.Background())) })
	door, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, door.Close())
	m := &mailServer{t: t, sink: sink, addr: door.Addr().String()}
	t.Cleanup(m.stop)
	return m
}

func (m *mailServer) url() string { return "smtp://" + m.addr + "?tls=none&from=shop@example.com" }

// start opens the door.
func (m *mailServer) start() {
	m.t.Helper()
	door, err := net.Listen("tcp", m.addr)
	require.NoError(m.t, err)
	m.mu.Lock()
	m.door = door
	m.mu.Unlock()
	behind, _, _ := strings.Cut(strings.TrimPrefix(m.sink.URL(), "smtp://"), "?")
	m.open.Go(func() {
		for {
			client, err := door.Accept()
			if err != nil {
				return
			}
			m.open.Go(func() { pass(client, behind) })
		}
	})
}

// stop closes the door, and waits for those who are inside to leave.
func (m *mailServer) stop() {
	m.mu.Lock()
	if m.door != nil {
		_ = m.door.Close()
		m.door = nil
	}
	m.mu.Unlock()
	m.open.Wait()
}

// pass carries what two connections say to each other until one of them ends.
func pass(client net.Conn, addr string) {
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			done <- struct{}{}
		}()
	}
	<-done
	_ = client.Close()
	_ = server.Close()
	<-done
}
