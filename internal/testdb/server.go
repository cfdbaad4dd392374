package testdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// envDir overrides the folder in which processes find each other; the tests of this package use it to be alone.
const envDir = "PGOUTBOX_TESTDB_DIR"

const pollEvery = 20 * time.Millisecond

// server is this process's hold on the shared server. users stays locked as long as the process lives; the kernel
// unlocks it, which is why a process that is killed holds nothing up.
var server struct {
	sync.Mutex
	users *os.File
	url   string
}

// serverURL returns the URL of the server's maintenance database.
func serverURL(ctx context.Context) (string, error) {
	if external := os.Getenv(EnvURL); external != "" {
		return external, nil
	}
	server.Lock()
	defer server.Unlock()
	if server.url != "" {
		return server.url, nil
	}
	dir, err := meetingPlace()
	if err != nil {
		return "", err
	}
	if server.users == nil {
		users, err := lock(ctx, filepath.Join(dir, usersLock), shared)
		if err != nil {
			return "", err
		}
		server.users = users
	}
	server.url, err = join(ctx, dir)
	return server.url, err
}

// join finds the running server or has one started. The caller holds users.lock, so no keeper that runs
// can decide to end, and start.lock makes it one starter at a time.
func join(ctx context.Context, dir string) (string, error) {
	starting, err := lock(ctx, filepath.Join(dir, startLock), exclusive)
	if err != nil {
		return "", err
	}
	defer func() { _ = starting.Close() }()

	spawned, deaf := 0, time.Now().Add(20*time.Second)
	for {
		if held, err := isHeld(filepath.Join(dir, keeperLock)); err != nil {
			return "", err
		} else if held {
			url, err := readURL(dir)
			if err != nil {
				return "", err
			}
			if url != "" {
				// A keeper that was just killed can still hold its lock while its server ends.
				err := ping(ctx, url)
				if err == nil {
					return url, nil
				}
				if time.Now().After(deaf) {
					return "", fmt.Errorf("the server does not answer: %w: %s", err, lastWords(dir))
				}
			}
		} else if spawned == 0 {
			// What a keeper that was killed has left must not be taken for the news of the next.
			if err := os.Remove(filepath.Join(dir, urlFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
			if spawned, err = spawnKeeper(dir); err != nil {
				return "", err
			}
		}
		if spawned != 0 && hasEnded(spawned) {
			return "", fmt.Errorf("the server's keeper ended: %s", lastWords(dir))
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("wait for the server: %w: %s", ctx.Err(), lastWords(dir))
		case <-time.After(pollEvery):
		}
	}
}

// meetingPlace is a folder that all test processes of this user know, and no other user can prepare for them.
func meetingPlace() (string, error) {
	dir := os.Getenv(envDir)
	if dir == "" {
		dir = filepath.Join(place(), "pgoutbox-test-"+strconv.Itoa(os.Getuid()))
	}
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() || !ownedByUs(info) || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%s is not a folder of this user alone", dir)
	}
	return dir, nil
}

// spawnKeeper starts this very program again, as the keeper: see init in keeper.go. Its standard streams are a file,
// because go test waits for everyone who holds the streams of a test. No goroutine waits for it, for the sake of tests that
// look for leaks.
func spawnKeeper(dir string) (pid int, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	log, err := os.OpenFile(filepath.Join(dir, keeperLog), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), envKeeper+"="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = detached()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	return pid, cmd.Process.Release()
}

func readURL(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, urlFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return strings.TrimSpace(string(data)), nil
}

func ping(ctx context.Context, url string) error {
	return onServer(ctx, url, func(conn *pgx.Conn) error { return conn.Ping(ctx) })
}

func lastWords(dir string) string {
	said, err := os.ReadFile(filepath.Join(dir, keeperLog))
	if err != nil || len(said) == 0 {
		return "it said nothing"
	}
	return strings.TrimSpace(string(said[max(0, len(said)-4096):]))
}
