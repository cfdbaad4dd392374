package testdb_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/migrations"
)

// envHelper makes TestHelper, in a process of its own, say that it has a database and then wait for its standard input to end.
const envHelper = "PGOUTBOX_TESTDB_TEST_HELPER"

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestNewIsMigratedAndAlone(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	one, two := testdb.Pool(t), testdb.Pool(t)
	current, err := migrations.Current(ctx, one, migrations.Options{Shop: true})
	if err != nil || !current {
		t.Fatalf("current = %v, %v", current, err)
	}
	if _, err := one.Exec(ctx, `CREATE TABLE only_here (id int)`); err != nil {
		t.Fatal(err)
	}
	var there *string
	if err := two.QueryRow(ctx, `SELECT to_regclass('only_here')::text`).Scan(&there); err != nil || there != nil {
		t.Fatalf("the other database has the table too: %v, %v", there, err)
	}
}

func TestEmptyIsEmpty(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, testdb.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var tables int
	err = conn.QueryRow(ctx, `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables)
	if err != nil || tables != 0 {
		t.Fatalf("%d tables, %v", tables, err)
	}
}

func TestDroppedThoughConnected(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	var url string
	t.Run("inner", func(t *testing.T) {
		url = testdb.New(t)
		if _, err := pgx.Connect(ctx, url); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := pgx.Connect(ctx, url); err == nil || !strings.Contains(err.Error(), "3D000") {
		t.Fatalf("the database is still there: %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() { testdb.New(t) })
	}
	wg.Wait()
}

func TestNoGoroutineStays(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("inner", func(t *testing.T) {
		if err := testdb.Pool(t).Ping(testContext(t)); err != nil {
			t.Fatal(err)
		}
	})
	goleak.VerifyNone(t, before)
}

// TestSharedAndGone starts six processes at once, in a meeting place of their own: they share one server, which outlives the process that
// had it started, killed, and ends after the last.
func TestSharedAndGone(t *testing.T) {
	if os.Getenv(testdb.EnvURL) != "" {
		t.Log("with a server given there is none to start; the processes share it all the same")
	}
	t.Parallel()
	dir, err := os.MkdirTemp("", "pgoutbox-testdb-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}

	const n = 6
	helpers := make([]*helper, n)
	var wg sync.WaitGroup
	for i := range helpers {
		wg.Go(func() { helpers[i] = startHelper(t, dir) })
	}
	wg.Wait()
	for i, h := range helpers {
		if h == nil {
			t.Fatal("a helper did not get its database")
		}
		if i < n-1 {
			h.kill()
		}
	}
	last := helpers[n-1]
	conn, err := pgx.Connect(testContext(t), last.url)
	if err != nil {
		t.Fatalf("the server is gone under the last process: %v", err)
	}
	_ = conn.Close(t.Context())
	last.kill()

	// One that comes in the moment of the end gets a server as well, whether the old or a new one.
	late := startHelper(t, dir)
	if late == nil {
		t.Fatal("a late helper did not get its database")
	}
	late.kill()
	awaitGone(t, filepath.Join(dir, "server"))
}

// TestKeeperKilled: a killed keeper takes its server along, and the next process has a new one started.
func TestKeeperKilled(t *testing.T) {
	if os.Getenv(testdb.EnvURL) != "" {
		return // there is no keeper
	}
	t.Parallel()
	dir, err := os.MkdirTemp("", "pgoutbox-testdb-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	first := startHelper(t, dir)
	if first == nil {
		t.Fatal("the first helper did not get its database")
	}
	if err := testdb.KillKeeper(dir); err != nil {
		t.Fatal(err)
	}
	second := startHelper(t, dir)
	if second == nil {
		t.Fatal("the second helper did not get its database")
	}
	if first.url == second.url {
		t.Fatal("the second helper was sent to the dead server")
	}
	first.kill()
	second.kill()
	awaitGone(t, filepath.Join(dir, "server"))
}

func TestHelper(t *testing.T) {
	if os.Getenv(envHelper) == "" {
		return
	}
	_, _ = os.Stdout.WriteString("url " + testdb.New(t) + "\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

type helper struct {
	cmd *exec.Cmd
	url string
}

func startHelper(t *testing.T, dir string) *helper {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelper$")
	cmd.Env = append(os.Environ(), envHelper+"=1", testdb.EnvDir+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Error(err)
		return nil
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return nil
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return nil
	}
	h := &helper{cmd: cmd}
	t.Cleanup(func() {
		_ = stdin.Close()
		h.kill()
	})
	var said strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(said.String(), "\n") {
		n, err := stdout.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			t.Errorf("helper ended: %v", err)
			return nil
		}
	}
	first, rest, _ := strings.Cut(said.String(), "\n")
	url, ok := strings.CutPrefix(first, "url ")
	if !ok {
		t.Errorf("helper said: %s\n%s", first, rest)
		return nil
	}
	h.url = url
	return h
}

func (h *helper) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

func awaitGone(t *testing.T, path string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s is still there", path)
		}
	}
}
