// Package testdb gives each test a database of its own, on one PostgreSQL server that all test processes of
// a go test run share.
//
// The server is the one that TEST_DATABASE_URL names, whose user must be allowed to create databases. Without
// it the first process that needs a server has one started (see keeper.go), and the last one to end takes it along:
// nothing is left behind, also when processes are killed.
//
// A migrated database is a clone of a template that is migrated once per server. A test that needs a
// database fails when there is none; it is never skipped.
package testdb

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// EnvURL names a server to use instead of a private one.
const EnvURL = "TEST_DATABASE_URL"

const (
	setupTimeout   = 2 * time.Minute
	cleanupTimeout = 30 * time.Second
)

// New returns the URL of a fresh database with the newest schema of River, the outbox and the shop. It is dropped when the test
// ends, whoever is still connected.
func New(tb testing.TB) string {
	tb.Helper()
	return create(tb, true)
}

// Empty returns the URL of a fresh database with nothing in it. It is dropped like New's.
func Empty(tb testing.TB) string {
	tb.Helper()
	return create(tb, false)
}

// Pool returns a pool on a database like New's, closed when the test ends. Its timeouts make a test that
// is stuck in the database fail long before go test's own timeout.
func Pool(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return PoolOn(tb, New(tb))
}

// PoolOn returns a pool like Pool's on the database of that URL.
func PoolOn(tb testing.TB, databaseURL string) *pgxpool.Pool {
	tb.Helper()
	return poolOf(tb, databaseURL, 16)
}

// SmallPool returns a pool like Pool's, with so many connections at most, on the database of another.
func SmallPool(tb testing.TB, other *pgxpool.Pool, conns int32) *pgxpool.Pool {
	tb.Helper()
	return poolOf(tb, other.Config().ConnString(), conns)
}

func poolOf(tb testing.TB, databaseURL string, conns int32) *pgxpool.Pool {
	tb.Helper()
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		tb.Fatalf("testdb: %v", err)
	}
	config.MaxConns = conns
	config.ConnConfig.ConnectTimeout = 10 * time.Second
	for name, value := range map[string]string{
		"statement_timeout": "30s", "lock_timeout": "15s", "idle_in_transaction_session_timeout": "60s",
	} {
		config.ConnConfig.RuntimeParams[name] = value
	}
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		tb.Fatalf("testdb: %v", err)
	}
	tb.Cleanup(func() { closePool(tb, pool) })
	return pool
}

// closePool waits for every connection to come back, but not for ever: a test that keeps one is told so.
func closePool(tb testing.TB, pool *pgxpool.Pool) {
	tb.Helper()
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(cleanupTimeout / 2):
		tb.Errorf("testdb: %d connections were not given back to the pool", pool.Stat().AcquiredConns())
	}
}

func create(tb testing.TB, migrated bool) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	admin, err := serverURL(ctx)
	if err != nil {
		tb.Fatalf("testdb: no PostgreSQL for the tests: %v", err)
	}
	template := "template0"
	if migrated {
		if template, err = migratedTemplate(ctx, admin); err != nil {
			tb.Fatalf("testdb: %v", err)
		}
	}
	name := "test_" + strings.ToLower(rand.Text())
	if err := createDatabase(ctx, admin, name, template); err != nil {
		tb.Fatalf("testdb: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := dropDatabase(ctx, admin, name); err != nil {
			tb.Errorf("testdb: %v", err)
		}
	})
	databaseURL, err := withDatabase(admin, name)
	if err != nil {
		tb.Fatalf("testdb: %v", err)
	}
	return databaseURL
}

func withDatabase(serverURL, name string) (string, error) {
	u, err := url.Parse(serverURL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", fmt.Errorf("%s is no postgres:// URL", EnvURL)
	}
	u.Path = "/" + name
	query := u.Query()
	query.Del("dbname")
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// onServer runs fn on a connection of its own: a pool that the process keeps would be a leak to tests that look for such.
func onServer(ctx context.Context, serverURL string, fn func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, serverURL)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	return fn(conn)
}

// Main runs a package's tests, for its TestMain to end with: more of them at a time than go test would, unless it was told how many. A
// test that waits for its database leaves a processor to others.
func Main(m *testing.M) (code int) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		if err := parallel.Value.Set(strconv.Itoa(3 * runtime.GOMAXPROCS(0))); err != nil {
			panic(err) // it is a number
		}
	}
	return m.Run()
}
