package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/faults/proxy"
)

// What is large, pipelined, copied or asked with the wish for TLS comes through as it is.
func TestPassesAll(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	u, err := url.Parse(d.proxied)
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery = "sslmode=prefer"
	conn := connect(t, u.String())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	large := bytes.Repeat([]byte("A\x00\x00\x00\x05COMMIT\x00"), 300_000) // several reads, full of what looks like messages
	var back []byte
	if err := conn.QueryRow(ctx, `SELECT $1::bytea`, large).Scan(&back); err != nil || !bytes.Equal(back, large) {
		t.Errorf("%d of %d bytes came back: %v", len(back), len(large), err)
	}
	rows, err := conn.Query(ctx, `SELECT n FROM generate_series(1, 100000) AS n`)
	if err != nil {
		t.Fatal(err)
	}
	numbers, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil || len(numbers) != 100_000 || numbers[99_999] != 100_000 {
		t.Errorf("%d rows: %v", len(numbers), err)
	}
	mustExec(t, conn, `CREATE TABLE t (n int)`)
	if n, err := conn.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"n"}, pgx.CopyFromSlice(len(numbers), func(i int) ([]any, error) {
		return []any{numbers[i]}, nil
	})); err != nil || n != 100_000 {
		t.Errorf("copied %d: %v", n, err)
	}
	batch := &pgx.Batch{}
	for i := range 1000 {
		batch.Queue(`INSERT INTO t VALUES ($1)`, i)
	}
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		t.Error(err)
	}
	if n := count(t, conn); n != 101_000 {
		t.Errorf("%d rows", n)
	}
	if s := d.Stats(); s.Cut != 0 || s.Unreadable != 0 || s.Open != 1 {
		t.Errorf("%+v", s)
	}
}

func TestWhatIsNoPostgreSQLIsReset(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	conn := dial(t, d.Addr())
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	if s := d.Stats(); s.Unreadable != 1 || s.Cut != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCutAll(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	idle, busy := d.connect(t), d.connect(t)
	watch := connect(t, d.direct)
	answer := make(chan error, 1)
	go func() { answer <- exec(t, busy, `SELECT pg_sleep(3600)`) }()
	eventually(t, "the query runs", func() bool {
		var n int
		err := watch.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()`).Scan(&n)
		return err == nil && n == 1
	})
	if n := d.CutAll(); n != 2 {
		t.Errorf("%d were cut", n)
	}
	mustBeCut(t, <-answer)
	mustBeCut(t, exec(t, idle, `SELECT 1`))
	eventually(t, "nothing is open", func() bool { return d.Stats().Open == 0 })
	if s := d.Stats(); s.Cut != 2 {
		t.Errorf("%+v", s)
	}
	mustExec(t, d.connect(t), `SELECT 1`)
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	before := d.connect(t)
	for range 3 {
		if err := d.Refuse(true); err != nil {
			t.Fatal(err)
		}
		if _, err := pgx.Connect(t.Context(), d.proxied); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connect: %v", err)
		}
		mustExec(t, before, `SELECT 1`)
		if err := d.Refuse(false); err != nil {
			t.Fatal(err)
		}
		mustExec(t, d.connect(t), `SELECT 1`)
	}
}

func TestSetTarget(t *testing.T) {
	t.Parallel()
	a, b := answering(t, "a"), answering(t, "b")
	p := start(t, proxy.Options{Target: a})
	client := httpClient(t)
	if got, err := get(t, client, p.Addr()); got != "a" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	p.SetTarget(b)
	if got, err := get(t, client, p.Addr()); got != "a" || err != nil { // the same connection
		t.Errorf("%q, %v", got, err)
	}
	client.CloseIdleConnections()
	if got, err := get(t, client, p.Addr()); got != "b" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	client.CloseIdleConnections()
	unused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.SetTarget(unused.Addr().String())
	if err := unused.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, client, p.Addr()); err == nil {
		t.Errorf("nobody answered %q", got)
	}
	if s := p.Stats(); s.Unreachable != 1 || s.Accepted != 3 {
		t.Errorf("%+v", s)
	}
}

// An end of one direction leaves the other one open, and what is under way arrives.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	body := bytes.Repeat([]byte("x"), 4<<20)
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, conn)
			_, written := conn.Write(body)
			err = errors.Join(err, written, conn.Close())
		}
		served <- err
	}()
	p := start(t, proxy.Options{Target: listener.Addr().String()})
	conn := dial(t, p.Addr())
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// The server has written and closed before a byte is read: what the proxy still has must not be lost.
	got, err := io.ReadAll(conn)
	if err != nil || len(got) != len(body) {
		t.Errorf("%d of %d bytes: %v", len(got), len(body), err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// Modes change while clients work and the proxy is closed under them; nothing hangs, and TestMain sees that nothing is left.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 7)
	direct := d.table(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				visit(ctx, d.proxied)
			}
		})
	}
	modes := []func(on bool){
		func(bool) { d.CutAll() },
		func(bool) { d.CutListeners() },
		func(on bool) {
			if err := d.Refuse(on); err != nil {
				t.Error(err)
			}
		},
		d.BlackHole, d.Stall, d.SwallowNotifications,
		func(on bool) { d.Slow(map[bool]time.Duration{true: time.Millisecond}[on], 0) },
		func(on bool) { d.CutInside(map[bool]float64{true: .1}[on]) },
		func(on bool) { d.CutAnswers(map[bool]float64{true: .1}[on]) },
		func(on bool) { d.CutAfterCommit(map[bool]float64{true: .5}[on]) },
		func(bool) { d.CutNextCommits(1) },
	}
	for _, mode := range modes {
		mode(true)
		visit(ctx, d.proxied)
		mode(false)
		visit(ctx, d.proxied)
	}
	done := d.Stats().Accepted + 4
	eventually(t, "clients come back", func() bool { return d.Stats().Accepted > done })
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if s := d.Stats(); s.Open != 0 || s.Unreadable != 0 {
		t.Errorf("%+v", s)
	}
	cancel()
	clients.Wait()
	if n := count(t, direct); n%2 != 0 {
		t.Errorf("half a transaction: %d rows", n)
	}
	if err := d.Refuse(false); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the close: %v", err)
	}
}

// visit connects and writes in transactions until it is disturbed.
func visit(ctx context.Context, dsn string) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close(ctx) }()
	for range 20 {
		batch := &pgx.Batch{}
		for _, sql := range []string{`BEGIN`, `INSERT INTO t VALUES (1)`, `LISTEN c`, `NOTIFY c`, `INSERT INTO t VALUES (2)`, `COMMIT`} {
			batch.Queue(sql)
		}
		if conn.SendBatch(ctx, batch).Close() != nil {
			return
		}
	}
}

func answering(t testing.TB, what string) (addr string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, what) }))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func httpClient(t testing.TB) *http.Client {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func get(t testing.TB, client *http.Client, addr string) (string, error) {
	t.Helper()
	answer, err := client.Get("http://" + addr)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", answer.StatusCode)
	}
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}
