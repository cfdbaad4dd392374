//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package testdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

type lockKind int

const (
	shared    lockKind = syscall.LOCK_SH
	exclusive lockKind = syscall.LOCK_EX
)

var errHeld = errors.New("the lock is held by another process")

// tryLock opens the file, which is never removed, and locks it without waiting. Closing it unlocks.
func tryLock(path string, kind lockKind) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), int(kind)|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errHeld
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func lock(ctx context.Context, path string, kind lockKind) (*os.File, error) {
	for {
		f, err := tryLock(path, kind)
		if !errors.Is(err, errHeld) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

// isHeld asks with a shared lock, which it gives back at once.
func isHeld(path string) (bool, error) {
	f, err := tryLock(path, shared)
	if errors.Is(err, errHeld) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, f.Close()
}

func ownedByUs(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}

// detached gives the keeper a session of its own: a Ctrl-C that ends the tests must not end it before them.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// hasEnded reaps the child if it has ended.
func hasEnded(pid int) bool {
	reaped, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	return reaped == pid || errors.Is(err, syscall.ECHILD)
}
