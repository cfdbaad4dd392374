//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package postgres

import (
	"errors"
	"os"
	"syscall"
)

func baseAttr(account) *syscall.SysProcAttr   { return nil }
func serverAttr(account) *syscall.SysProcAttr { return nil }

func guard(int, account) (release func()) { return func() {} }

// sendSignal can only end the process here; the next start recovers from the log.
func sendSignal(p *os.Process, _ stopSignal) error { return p.Kill() }

func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}

func interrupt(int) error { return errors.New("not supported on this system") }

func servesDir(pid int, _ string) bool { return alive(pid) }

// lockFile relies on postmaster.pid alone to refuse a second owner.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

func unlockFile(f *os.File) { _ = f.Close() }

func owner(os.FileInfo) (uid, gid uint32, known bool) { return 0, 0, false }
