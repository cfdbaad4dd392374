package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// slowEnv makes the test's own program a swarm of slow clients: it has as many connections again as one process may have files.
const slowEnv = "OUTBOX_TEST_SLOW_CLIENTS"

const (
	// slowPause is between two bytes, slowBack until a client that was cut off comes again, and slowSay between two reports.
	slowPause = time.Second
	slowBack  = 250 * time.Millisecond
	slowSay   = 100 * time.Millisecond
)

// swarm are the slow clients of a process.
type swarm struct {
	addr                       string
	open, opened, cut, refused atomic.Int64
	stopped                    chan struct{}
}

// beSlow is the program, which ends when its input has ended and all of its clients were cut off.
func beSlow(what string) int {
	var n int
	s := &swarm{stopped: make(chan struct{})}
	if _, err := fmt.Sscan(what, &s.addr, &n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(s.stopped)
	}()
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() { s.client(i) })
	}
	ended := make(chan struct{})
	go func() {
		clients.Wait()
		close(ended)
	}()
	say := func() {
		_ = json.NewEncoder(os.Stdout).Encode(slowReport{s.open.Load(), s.opened.Load(), s.cut.Load(), s.refused.Load()})
	}
	for ticker := time.NewTicker(slowSay); ; {
		select {
		case <-ticker.C:
			say()
		case <-ended:
			say()
			return 0
		}
	}
}

// client comes again and again.
func (s *swarm) client(i int) {
	for {
		if conn, err := net.DialTimeout("tcp", s.addr, 30*time.Second); err != nil {
			s.refused.Add(1)
		} else {
			s.open.Add(1)
			s.opened.Add(1)
			s.dawdle(i, conn)
			_ = conn.Close()
			s.open.Add(-1)
			s.cut.Add(1)
		}
		select {
		case <-s.stopped:
			return
		case <-time.After(slowBack):
		}
	}
}

// dawdle is half of the time with a header, a quarter with a body, and otherwise with many answers that it does not read, or idle. It returns when
// the service has closed the connection.
func (s *swarm) dawdle(i int, conn net.Conn) {
	switch i % 8 {
	case 0, 1, 2, 3:
		go dribble(conn, "GET /v1/products HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	case 4, 5:
		go dribble(conn, "POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{")
	case 6:
		// More answers than the buffers hold are asked for, and none is read, until the service has had enough.
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4 << 10)
		}
		for err := error(nil); err == nil; {
			_, err = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		return
	default:
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return
		}
	}
	_, _ = io.Copy(io.Discard, bufio.NewReaderSize(conn, 16))
}

// dribble sends a byte after the other.
func dribble(conn net.Conn, begin string) {
	for text := begin; ; text = "x" {
		if _, err := io.Copy(conn, strings.NewReader(text)); err != nil {
			return
		}
		<-time.After(slowPause)
	}
}
