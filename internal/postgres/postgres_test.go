package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestKeepsDataBetweenRuns(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: dataDir(t), Fsync: true, Settings: map[string]string{"work_mem": "5MB"}}
	s := start(t, cfg)
	query(t, s, `CREATE TABLE kept AS SELECT 'Ä' AS letter`)
	for setting, want := range map[string]string{
		"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200", "fsync": "on", "work_mem": "5MB",
		"server_encoding": "UTF8",
	} {
		if got := query(t, s, "SHOW "+setting); got != want {
			t.Errorf("%s = %q, want %q", setting, got, want)
		}
	}
	stop(t, s)
	stop(t, s) // once more does no harm
	select {
	case <-s.Done():
	default:
		t.Error("stopped, but not done")
	}
	if err := s.Err(); err != nil {
		t.Errorf("a stop is no failure: %v", err)
	}

	s = start(t, cfg)
	if got := query(t, s, `SELECT lower(letter) FROM kept`); got != "ä" {
		t.Errorf("the row came back as %q", got)
	}
	info, err := os.Stat(passwordFile(cfg.DataDir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("password file: %v, %v", info.Mode(), err)
	}
}

func TestNobodyEntersWithoutThePassword(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DataDir: dataDir(t)})
	for _, password := range []string{"", "outbox"} {
		url := fmt.Sprintf("postgres://outbox:%s@127.0.0.1:%d/outbox?sslmode=disable", password, s.Port())
		if conn, err := pgx.Connect(t.Context(), url); err == nil {
			_ = conn.Close(t.Context())
			t.Errorf("let in with password %q", password)
		}
	}
}

func TestSecondOwnerIsRefused(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	start(t, Config{DataDir: dir})
	if _, err := Start(t.Context(), Config{DataDir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second start: %v", err)
	}
	if err := Remove(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("removal under a server: %v", err)
	}
}

func TestForeignServerIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	s := start(t, Config{DataDir: dir})
	// A server that somebody started by hand: it is there, and neither the lock nor the note knows of it.
	if err := os.Remove(startedFile(s.dir)); err != nil {
		t.Fatal(err)
	}
	_ = s.lock.Close()
	_, err := Start(t.Context(), Config{DataDir: dir})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(s.PID())) {
		t.Errorf("a start on a foreign server's data: %v", err)
	}
	query(t, s, `SELECT ''`)
}

func TestPostmasterKilled(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: dataDir(t), Fsync: true}
	s := start(t, cfg)
	query(t, s, `CREATE TABLE kept ()`)
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if s.Err() == nil {
		t.Error("the death is not reported")
	}
	if postmasterPID(clusterDir(s.dir)) == 0 {
		t.Fatal("the killed postmaster left no postmaster.pid, so this tests nothing")
	}
	s = start(t, cfg)
	query(t, s, `SELECT '' FROM kept`)
	stop(t, s)

	// The id in a stale file can have come to an innocent process: this one.
	stale := fmt.Sprintf("%d\n%s\n", os.Getpid(), clusterDir(s.dir))
	if err := os.WriteFile(filepath.Join(clusterDir(s.dir), "postmaster.pid"), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, cfg)
}

func TestOwnerKilled(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	owner, server := startOwner(t, dir)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	// The next run does not have to wait for the end by itself.
	s := start(t, Config{DataDir: dir})
	if !gone(server) {
		t.Errorf("the old server, process %d, is still there", server)
	}
	stop(t, s)

	owner, server = startOwner(t, dir)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	eventually(t, func() bool { return gone(server) })
}

// TestStartersThreadEnds: the parent-death signal hangs on the thread that forks, and the caller's may end at any time.
func TestStartersThreadEnds(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: dataDir(t)}
	started := make(chan *Server)
	thread := make(chan int, 1)
	onOwnThread(func() {
		defer close(started)
		thread <- threadID()
		s, err := Start(context.Background(), cfg)
		if err != nil {
			t.Error(err)
			return
		}
		started <- s
	})
	s := <-started
	if s == nil {
		t.FailNow()
	}
	t.Cleanup(func() { stop(t, s) })
	id := <-thread
	eventually(t, func() bool { return threadGone(id) })
	query(t, s, `SELECT ''`)
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}

// onOwnThread runs fn on a thread that ends with it: a goroutine that ends locked takes its thread along. The
// process's first thread does not end, so where it comes up it is held while another is taken.
func onOwnThread(fn func()) {
	go func() {
		runtime.LockOSThread()
		if threadID() == os.Getpid() {
			onOwnThread(fn)
			return
		}
		fn()
	}()
}

func TestWatchdog(t *testing.T) {
	t.Parallel()
	for _, ownerDies := range []bool{true, false} {
		victim := exec.Command("/bin/cat")
		stdin, err := victim.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		release, closePipe, err := watchdog(victim.Process.Pid, account{})
		if err != nil {
			t.Fatal(err)
		}
		if ownerDies {
			closePipe()
			var exit *exec.ExitError
			if err := victim.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
				t.Errorf("the watched process ended with %v", err)
			}
			release()
			continue
		}
		release()
		_ = stdin.Close()
		if err := victim.Wait(); err != nil {
			t.Errorf("a release disturbed the watched process: %v", err)
		}
	}
}

func TestInterruptedInitdb(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		s, err := Start(ctx, Config{DataDir: dir})
		if err == nil {
			err = errors.Join(errors.New("it was too fast to be interrupted"), s.Stop(context.Background()))
		}
		result <- err
	}()
	eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(dir, "cluster.new", "PG_VERSION"))
		return err == nil
	})
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cluster")); err == nil {
		t.Fatal("half a cluster is in place")
	}
	s := start(t, Config{DataDir: dir})
	query(t, s, `SELECT ''`)
}

func TestOtherMajorVersionIsRefused(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	s := start(t, Config{DataDir: dir})
	stop(t, s)
	if err := os.WriteFile(filepath.Join(dir, "cluster", "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), "made by PostgreSQL 9") || !strings.Contains(err.Error(), EnvBinDir) {
		t.Errorf("a start on another version's data: %v", err)
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Config{DataDir: dataDir(t), Settings: map[string]string{"work_mem": "much"}})
	if err == nil || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("the server's own words are missing: %v", err)
	}
}
