//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package postgres

import (
	"path/filepath"
	"syscall"
	"testing"
)

// A second descriptor of the same open file is what a child has between its fork and its exec.
func TestUnlockWhileAnotherChildIsStarting(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := syscall.Dup(int(lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(inherited) })
	if _, err := lockFile(path); err == nil {
		t.Fatal("a lock that is held was taken")
	}
	unlockFile(lock)
	next, err := lockFile(path)
	if err != nil {
		t.Fatalf("after the lock was given back: %v", err)
	}
	unlockFile(next)
}
