package handlers_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
)

// bounded is the shop's API on a server with so many connections.
func bounded(s *shop, most int) (addr string, of *handlers.Connections) {
	s.t.Helper()
	server := handlers.NewServer(handlers.NewAPI(handlers.Config{Pool: s.pool, Logger: slog.New(slog.DiscardHandler)}))
	of = handlers.LimitConnections(server, most)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s.t, err)
	go func() { _ = server.Serve(socket) }()
	s.t.Cleanup(func() { _ = server.Close() })
	return socket.Addr().String(), of
}

// peer is a client that says what it likes.
type peer struct {
	t *testing.T
	net.Conn
	answers *bufio.Reader
}

func dial(t *testing.T, addr string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	return &peer{t, conn, bufio.NewReader(conn)}
}

func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	_, err := fmt.Fprintf(p, format, args...)
	require.NoError(p.t, err)
}

// answer reads one to its end.
func (p *peer) answer() (status int, body string) {
	p.t.Helper()
	res, err := http.ReadResponse(p.answers, nil)
	require.NoError(p.t, err)
	raw, err := io.ReadAll(res.Body)
	require.NoError(p.t, err)
	return res.StatusCode, string(raw)
}

// cut waits for the server to close the connection.
func (p *peer) cut() {
	p.t.Helper()
	for {
		if _, err := p.answers.ReadByte(); err != nil {
			require.NotErrorIs(p.t, err, os.ErrDeadlineExceeded, "it is still open")
			return
		}
	}
}

const alive = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

// Of more connections than there may be, the one that the server waits for the longest makes room: for a header, for a body, or idle.
func TestOneConnectionTooManyCostsTheSlowest(t *testing.T) {
	t.Parallel()
	addr, of := bounded(newShop(t), 3)
	header := dial(t, addr)
	header.send("GET /healthz HTTP/1.1\r\nHos")
	require.Eventually(t, func() bool { return of.Open() == 1 }, 10*time.Second, time.Millisecond)
	body := dial(t, addr)
	body.send("POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
	asked, err := body.answers.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, asked, "100 Continue", "the body is waited for from here on, and not only the connection")
	body.send("{")
	require.Equal(t, 2, of.Waiting())
	idle := dial(t, addr)
	idle.send(alive)
	status, _ := idle.answer()
	require.Equal(t, 200, status)
	require.Eventually(t, func() bool { return of.Waiting() == 3 }, 10*time.Second, time.Millisecond)

	for i, slow := range []*peer{header, body, idle} {
		busy := dial(t, addr)
		busy.send(alive)
		status, _ := busy.answer()
		require.Equal(t, 200, status)
		slow.cut()
		require.EqualValues(t, i+1, of.Dropped())
		require.Equal(t, 3, of.Open())
	}
}

// What is being answered is not cut off: a connection too many is closed itself where no other is waited for.
func TestARequestThatIsAnsweredKeepsItsConnection(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	addr, of := bounded(s, 1)
	waits := dial(t, addr)
	waits.send("GET /v1/account HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nPrefer: wait=30\r\n\r\n", c.token)
	s.somebodyWaits()
	dial(t, addr).cut()
	require.EqualValues(t, 1, of.Dropped())
	s.exec(`insert into subscriptions (user_id, plan, trial_ends_at) values ($1, 'trial', now() + interval '14 days')`, c.id)
	status, body := waits.answer()
	require.Equal(t, 200, status)
	require.True(t, strings.Contains(body, "trialing"), body)
	require.Eventually(t, func() bool { return of.Waiting() == 1 }, 10*time.Second, time.Millisecond)

	next := dial(t, addr)
	next.send(alive)
	status, _ = next.answer()
	require.Equal(t, 200, status)
	waits.cut() // it is idle now
	require.NoError(t, next.Close())
	require.Eventually(t, func() bool { return of.Open() == 0 }, 10*time.Second, time.Millisecond)
}
