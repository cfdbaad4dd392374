package proxy_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/pgoutbox/pgoutbox/faults/proxy"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait: it is reached only when something is broken.
const patience = 20 * time.Second

func start(t testing.TB, o proxy.Options) *proxy.Proxy {
	t.Helper()
	p, err := proxy.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

// database is a database of the test's own, reached through a proxy and past it.
type database struct {
	*proxy.Proxy
	direct, proxied string
}

func startDatabase(t testing.TB, seed uint64) database {
	t.Helper()
	direct := testdb.Empty(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, proxy.Options{Target: u.Host, Protocol: proxy.PostgreSQL, Seed: seed})
	u.Host = p.Addr()
	return database{p, direct, u.String()}
}

// connect opens a connection through the proxy.
func (d database) connect(t testing.TB) *pgx.Conn { t.Helper(); return connect(t, d.proxied) }

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = conn.Close(ctx)
		<-conn.PgConn().CleanupDone()
	})
	return conn
}

// table makes the table that the tests write to.
func (d database) table(t testing.TB) *pgx.Conn {
	t.Helper()
	conn := connect(t, d.direct)
	mustExec(t, conn, `CREATE TABLE t (n int)`)
	return conn
}

func count(t testing.TB, conn *pgx.Conn) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM t`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// exec runs a statement in time that is enough for it, unless something holds it up.
func exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := conn.Exec(ctx, sql, args...)
	return err
}

// mustBeCut checks that the connection was lost, and not that the server refused something.
func mustBeCut(t testing.TB, err error) {
	t.Helper()
	var refused *pgconn.PgError
	switch {
	case err == nil:
		t.Error("it went through")
	case errors.As(err, &refused):
		t.Errorf("the server answered: %v", err)
	case errors.Is(err, context.DeadlineExceeded):
		t.Errorf("it hung: %v", err)
	case !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, pgconn.ErrConnClosed): // a simple query tells only that it was closed
		t.Errorf("not reset: %v", err)
	}
}

// mustBeUnknown checks that the connection was lost when the statement was under way, and that pgx says so. It does for the extended
// protocol; of a simple query it tells as of one that was never sent.
func mustBeUnknown(t testing.TB, err error) {
	t.Helper()
	mustBeCut(t, err)
	if pgconn.SafeToRetry(err) {
		t.Errorf("taken for safe to retry: %v", err)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("it never came about: %s", what)
		}
	}
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}
