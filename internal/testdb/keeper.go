package testdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/pgoutbox/pgoutbox/internal/postgres"
)

// The files in the meeting place. Locks are flock's, which the kernel gives back when a process ends in any way.
//
//	users.lock    shared: a test process that uses the server, for life
//	              exclusive: the keeper, to shut down
//	start.lock    exclusive: a test process that looks for the server or has it started
//	keeper.lock   exclusive: the keeper, for life; holds its process id, for people
//	url           written by the keeper when the server is ready, removed when it is about to end
//
// A test process takes users.lock before it looks, and the keeper ends only under it: so a server that a test
// process has found cannot be stopped under it. The server hangs on the keeper's life (postgres.Start),
// so even a keeper that is killed leaves no server behind.
const (
	usersLock  = "users.lock"
	startLock  = "start.lock"
	keeperLock = "keeper.lock"
	urlFile    = "url"
	keeperLog  = "keeper.log"
	serverData = "server"
)

// envKeeper makes a test program the keeper, of the folder that it names.
const envKeeper = "PGOUTBOX_TESTDB_KEEPER"

// linger bridges the gap between two test programs of one run; a start costs about a second.
const linger = 2 * time.Second

// init takes the whole process over where it was started as the keeper. Every test program that
// imports this package can be one.
func init() {
	dir := os.Getenv(envKeeper)
	if dir == "" {
		return
	}
	if err := os.Unsetenv(envKeeper); err != nil {
		os.Exit(2)
	}
	if err := keep(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func keep(dir string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// Not at the first try: whoever waits for this keeper asks with a lock, too.
	trying, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	alone, err := lock(trying, filepath.Join(dir, keeperLock), exclusive)
	if err != nil {
		return fmt.Errorf("be the keeper: %w", err)
	}
	defer func() { _ = alone.Close() }()
	if err := noteHolder(alone); err != nil {
		return err
	}

	data := filepath.Join(dir, serverData)
	if err := removeData(ctx, data); err != nil {
		return err
	}
	s, err := postgres.Start(ctx, postgres.Config{DataDir: data, Settings: map[string]string{
		"max_connections":                "300",
		"autovacuum_naptime":             "1h", // it only disturbs: databases live for seconds
		"max_locks_per_transaction":      "128",
		"jit":                            "off",
		"max_wal_size":                   "256MB", // the server may be in memory: see place
		"dynamic_shared_memory_type":     "mmap",  // in the folder, and gone with it when the server was killed
		"max_prepared_transactions":      "10",
		"superuser_reserved_connections": "3",
	}})
	if err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, s.Stop(stopping), removeData(stopping, data))
	}()
	if err := writeFile(filepath.Join(dir, urlFile), s.URL(postgres.Database)); err != nil {
		return err
	}
	users, err := awaitLast(ctx, dir, s.Done())
	// The news goes before the server does; the locks go last, by the deferred calls above in reverse and at the exit.
	err = errors.Join(err, os.Remove(filepath.Join(dir, urlFile)))
	keepOpen = users
	return err
}

// keepOpen holds users.lock until the process has ended.
var keepOpen *os.File //nolint:unused // a reference is all it is for: a file that nobody refers to is closed

// awaitLast returns with users.lock when no test process has been alive for the linger.
func awaitLast(ctx context.Context, dir string, died <-chan struct{}) (*os.File, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var alone time.Time
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-died:
			return nil, errors.New("the server ended by itself")
		case <-tick.C:
		}
		users, err := tryLock(filepath.Join(dir, usersLock), exclusive)
		switch {
		case errors.Is(err, errHeld):
			alone = time.Time{}
		case err != nil:
			return nil, err
		case alone.IsZero():
			alone = time.Now()
			_ = users.Close()
		case time.Since(alone) >= linger:
			return users, nil
		default:
			_ = users.Close()
		}
	}
}

// removeData waits for the server of a keeper that was killed: it has been told to end, and is about to.
func removeData(ctx context.Context, data string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := postgres.Remove(data)
		if !errors.Is(err, postgres.ErrInUse) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pollEvery):
		}
	}
}

func noteHolder(lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return err
}

func writeFile(path, content string) error {
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
