package handlers_test

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
)

// pipes is a listener whose connections lead through memory, so that a bubble's clock is theirs, too.
type pipes struct {
	conns chan net.Conn
	ended chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { close(p.ended); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs fn with a way to connect to the API as its server has it, by a clock that does not wait. It has no database: what fn asks for
// needs none.
func inBubble(t *testing.T, fn func(t *testing.T, e *echo.Echo, connect func() net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		e := handlers.NewAPI(handlers.Config{Logger: slog.New(slog.DiscardHandler)})
		server, l := handlers.NewServer(e), pipes{make(chan net.Conn), make(chan struct{})}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = server.Serve(l) // that it is closed
		}()
		var conns []net.Conn
		defer func() {
			for _, c := range conns {
				_ = c.Close()
			}
			_ = server.Close()
			<-served
			<-time.After(time.Second) // a server lingers for half of that, after the last it said
		}()
		fn(t, e, func() net.Conn {
			here, there := net.Pipe()
			conns = append(conns, here)
			l.conns <- there
			return here
		})
	})
}

// slowly sends a byte each second until it is cut off, or all is sent.
func slowly(conn net.Conn, text string) {
	for i := range len(text) {
		if _, err := conn.Write([]byte{text[i]}); err != nil {
			return
		}
		<-time.After(time.Second) // of the bubble's clock
	}
}

// cutAfter reads until the server closes the connection, and requires that to be at its time.
func cutAfter(t *testing.T, conn net.Conn, d time.Duration) (said string) {
	t.Helper()
	began := time.Now()
	all, err := io.ReadAll(conn)
	if err != nil {
		require.ErrorIs(t, err, io.ErrClosedPipe)
	}
	took := time.Since(began)
	require.True(t, took >= d && took < d+3*time.Second, "%s after %s", took, all)
	return string(all)
}

func TestSlowHeaderIsCutOff(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, _ *echo.Echo, connect func() net.Conn) {
		conn := connect()
		go slowly(conn, "GET /healthz HTTP/1.1\r\nHost: "+strings.Repeat("x", 1000))
		_ = cutAfter(t, conn, 5*time.Second)
		silent := connect()
		_ = cutAfter(t, silent, 5*time.Second)
	})
}

func TestSlowBodyIsCutOff(t *testing.T) {
	t.Parallel()
	for name, framing := range map[string]string{"with a length": "Content-Length: 1000", "in chunks": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, _ *echo.Echo, connect func() net.Conn) {
				conn := connect()
				go func() {
					_, _ = io.WriteString(conn, "POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+framing+"\r\n\r\n")
					slowly(conn, strings.Repeat("1\r\nx\r\n", 200))
				}()
				said := cutAfter(t, conn, 15*time.Second)
				require.Contains(t, said, "HTTP/1.1 408 ")
				require.Contains(t, said, `"type":"request-timeout"`)
				require.Contains(t, said, "Connection: close")
			})
		})
	}
}

// A body that is too large is refused before it is sent, and its sender, who goes on all the same, is not listened to for long.
func TestLargeBodyIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for name, framing := range map[string]string{"with a length": "Content-Length: 99999999", "in chunks": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, _ *echo.Echo, connect func() net.Conn) {
				conn := connect()
				go func() {
					_, _ = io.WriteString(conn, "POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+framing+"\r\n\r\n"+
						"11000\r\n"+strings.Repeat("x", 0x11000)+"\r\n")
					slowly(conn, strings.Repeat("1\r\nx\r\n", 200))
				}()
				said := cutAfter(t, conn, 2*time.Second)
				require.Contains(t, said, "HTTP/1.1 413 ")
				require.Contains(t, said, `"type":"too-large"`)
			})
		})
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, _ *echo.Echo, connect func() net.Conn) {
		conn := connect()
		_, err := io.WriteString(conn, alive)
		require.NoError(t, err)
		said := cutAfter(t, conn, 90*time.Second)
		require.Contains(t, said, `{"status":"ok"}`)
	})
}

// A client that does not read its answer keeps nobody for ever; the time is enough for the longest wait that it may ask for.
func TestUnreadAnswerIsGivenUp(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, e *echo.Echo, connect func() net.Conn) {
		failed := make(chan time.Duration, 1)
		e.GET("/much", func(c echo.Context) error {
			began := time.Now()
			_, err := c.Response().Write([]byte(strings.Repeat("x", 1<<20)))
			failed <- time.Since(began)
			return err
		})
		conn := connect()
		_, err := io.WriteString(conn, "GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		took := <-failed
		require.True(t, took >= 45*time.Second && took < 2*time.Minute, took)
	})
}

func TestLargeHeaderIsRefused(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, _ *echo.Echo, connect func() net.Conn) {
		for size, want := range map[int]string{8 << 10: "200 ", 64 << 10: "431 "} {
			conn := connect()
			go func() {
				_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Large: "+strings.Repeat("x", size)+"\r\n\r\n")
			}()
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(res.Status, want), "%s for %d bytes", res.Status, size)
		}
	})
}

// Who asks first is told to go on only where the body will be read.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, _ *echo.Echo, connect func() net.Conn) {
		ask := func(length int) (net.Conn, *bufio.Reader) {
			conn := connect()
			_, err := io.WriteString(conn, "POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: "+
				strconv.Itoa(length)+"\r\n\r\n")
			require.NoError(t, err)
			return conn, bufio.NewReader(conn)
		}
		conn, answers := ask(2)
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
		_, _ = answers.ReadString('\n')
		_, err = io.WriteString(conn, "{}")
		require.NoError(t, err)
		res, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		require.Equal(t, 422, res.StatusCode)

		_, answers = ask(1 << 20)
		res, err = http.ReadResponse(answers, nil)
		require.NoError(t, err)
		require.Equal(t, 413, res.StatusCode, "without a word to go on")
	})
}

// What follows a request in the same bytes is a request of its own, and a length that is said in two ways is none.
func TestFramingIsNotAmbiguous(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, _ *echo.Echo, connect func() net.Conn) {
		for name, head := range map[string]string{
			"two lengths":       "Content-Length: 2\r\nContent-Length: 3\r\n",
			"a length of signs": "Content-Length: +2\r\n",
			"a folded header":   "X: a\r\n b\r\nContent-Length: x\r\n",
			"a blank in a name": "Content-Length : 2\r\n",
			"two hosts":         "Host: y\r\nContent-Length: 2\r\n",
		} {
			conn := connect()
			go func() {
				_, _ = io.WriteString(conn, "POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+head+"\r\n{}"+alive)
			}()
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err, name)
			require.Equal(t, 400, res.StatusCode, name)
			_, err = io.ReadAll(conn)
			require.True(t, err == nil || errors.Is(err, io.ErrClosedPipe), "%s: it is closed", name)
		}
	})
}
