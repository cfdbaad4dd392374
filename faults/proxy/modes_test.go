package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgoutbox/pgoutbox/faults/proxy"
)

// soon is the deadline of what is to run into it.
const soon = 300 * time.Millisecond

func TestBlackHole(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	direct := d.table(t)
	idle, asking := d.connect(t), d.connect(t)

	d.BlackHole(true)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := asking.Exec(ctx, `INSERT INTO t VALUES (1)`)
		answer <- err
	}()
	eventually(t, "the statement vanishes", func() bool { return d.Stats().Vanished > 0 })
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("a query: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, err := pgx.Connect(ctx, d.proxied); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a new connection: %v", err)
	}
	d.BlackHole(false)

	// What has lost nothing goes on, what is new works, and what was swallowed does not come after all.
	mustExec(t, idle, `SELECT 1`)
	mustExec(t, d.connect(t), `SELECT 1`)
	eventually(t, "what has lost bytes is reset", func() bool { return d.Stats().Cut == 1 })
	if n := count(t, direct); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// Answers vanish as well: the statement was under way before.
func TestBlackHoleSwallowsAnswers(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	direct := d.table(t)
	conn := d.connect(t)
	mustExec(t, direct, `BEGIN; LOCK TABLE t`)
	answer := make(chan error, 1)
	go func() { answer <- exec(t, conn, `INSERT INTO t VALUES ($1)`, pgx.QueryExecModeExec, 1) }() // one round trip
	eventually(t, "the insert waits for the lock", func() bool {
		var n int
		err := direct.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass`).Scan(&n)
		return err == nil && n == 1
	})
	d.BlackHole(true)
	mustExec(t, direct, `COMMIT`)
	eventually(t, "it is done", func() bool { return count(t, direct) == 1 })
	eventually(t, "the answer vanishes", func() bool { return d.Stats().Vanished > 0 })
	d.BlackHole(false)
	mustBeUnknown(t, <-answer)
}

// A commit that was under way arrives when its client has long given up.
func TestStall(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	direct := d.table(t)
	conn, other := d.connect(t), d.connect(t)
	d.Stall(true)
	// pgx would send a request to cancel behind it; a client that is killed does not.
	conn.PgConn().Frontend().SendQuery(&pgproto3.Query{String: `BEGIN; INSERT INTO t VALUES (1); COMMIT`})
	if err := conn.PgConn().Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	if err := conn.PgConn().Conn().Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, err := other.Exec(ctx, `SELECT 1`); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a query: %v", err)
	}
	if n := count(t, direct); n != 0 {
		t.Errorf("%d rows", n)
	}
	d.Stall(false)
	eventually(t, "the late commit", func() bool { return count(t, direct) == 1 })
	mustExec(t, d.connect(t), `SELECT 1`)
}

// While bytes do not pass, neither does a close: the server goes on waiting for its client.
func TestClosesDoNotPass(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	p := start(t, proxy.Options{Target: listener.Addr().String()})
	for name, mode := range map[string]func(bool){"black hole": p.BlackHole, "stall": p.Stall} {
		client := dial(t, p.Addr())
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		mode(true)
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		_ = server.SetReadDeadline(time.Now().Add(soon))
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		mode(false)
		_ = server.SetReadDeadline(time.Now().Add(patience))
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s, over: %v", name, err)
		}
		_ = server.Close()
	}
}

func TestSlow(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	conn, other := d.connect(t), d.connect(t)
	d.Slow(time.Hour, time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, err := other.Exec(ctx, `SELECT 1`); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	answer := make(chan error, 1)
	go func() { answer <- exec(t, conn, `SELECT 1`) }()
	d.Slow(0, 0)
	if err := <-answer; err != nil {
		t.Errorf("what waited did not pass when it was over: %v", err)
	}
	d.Slow(time.Millisecond, time.Millisecond)
	mustExec(t, conn, `SELECT 1`)
}

// A part of what is sent arrives, neither nothing nor all, and both sides see a reset.
func TestCutInside(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	p := start(t, proxy.Options{Target: listener.Addr().String(), Seed: 3})
	p.CutInside(1)
	sent := bytes.Repeat([]byte("0123456789"), 100)
	lengths := map[int]bool{}
	for range 20 {
		client := dial(t, p.Addr())
		if _, err := client.Write(sent); err != nil {
			t.Fatal(err)
		}
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = server.SetDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(server)
		_ = server.Close()
		if !errors.Is(err, syscall.ECONNRESET) || len(got) == 0 || len(got) >= len(sent) || !bytes.HasPrefix(sent, got) {
			t.Fatalf("%d bytes arrived: %v", len(got), err)
		}
		lengths[len(got)] = true
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client: %v", err)
		}
	}
	if len(lengths) < 5 {
		t.Errorf("always the same place: %v", lengths)
	}
	if s := p.Stats(); s.CutInside != 20 || s.Cut != 20 {
		t.Errorf("%+v", s)
	}
}

// Half of a pipeline arrives: none of its transaction is there.
func TestCutInsideTransaction(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 5)
	direct := d.table(t)
	for range 10 {
		d.CutInside(0)
		conn := d.connect(t)
		batch := &pgx.Batch{}
		batch.Queue(`BEGIN`)
		for range 20 {
			batch.Queue(`INSERT INTO t VALUES (1)`)
		}
		batch.Queue(`COMMIT`)
		d.CutInside(1)
		mustBeCut(t, conn.SendBatch(t.Context(), batch).Close())
	}
	eventually(t, "the server has ended those sessions", func() bool {
		var n int
		err := direct.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()`).Scan(&n)
		return err == nil && n == 1
	})
	if n := count(t, direct); n != 0 {
		t.Errorf("%d rows", n)
	}
}

func TestCutAnswers(t *testing.T) {
	t.Parallel()
	var served atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		_, _ = io.WriteString(w, "done")
	}))
	t.Cleanup(server.Close)
	p := start(t, proxy.Options{Target: server.Listener.Addr().String(), Seed: 1})
	client := httpClient(t)
	p.CutAnswers(1)
	for range 3 {
		if got, err := get(t, client, p.Addr()); err == nil {
			t.Errorf("an answer: %q", got)
		}
	}
	if n := served.Load(); n != 3 {
		t.Errorf("the server was reached %d times", n)
	}
	p.CutAnswers(.5)
	lost, n := 0, 40
	for range n {
		client.CloseIdleConnections() // on a used connection the client tries again by itself
		if _, err := get(t, client, p.Addr()); err != nil {
			lost++
		}
	}
	if lost == 0 || lost == n {
		t.Errorf("%d of %d answers were lost", lost, n)
	}
	p.CutAnswers(0)
	if got, err := get(t, client, p.Addr()); got != "done" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if s := p.Stats(); s.Answers != int64(3+lost) || s.Cut != s.Answers {
		t.Errorf("%+v, %d lost", s, lost)
	}
}

// The same seed gives the same cuts.
func TestSeed(t *testing.T) {
	t.Parallel()
	addr := answering(t, "x")
	lost := func(seed uint64) (places string) {
		p := start(t, proxy.Options{Target: addr, Seed: seed})
		p.CutAnswers(.5)
		client := httpClient(t)
		for range 32 {
			client.CloseIdleConnections()
			if _, err := get(t, client, p.Addr()); err != nil {
				places += "x"
			} else {
				places += "."
			}
		}
		return places
	}
	first := lost(1)
	if again := lost(1); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	if other := lost(2); other == first {
		t.Errorf("another seed gave the same: %s", other)
	}
}
