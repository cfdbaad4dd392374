//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package postgres

import "syscall"

func serverAttr(acct account) *syscall.SysProcAttr { return baseAttr(acct) }

func guard(pid int, acct account) (release func()) {
	release, _, err := watchdog(pid, acct)
	if err != nil {
		// Without it a kill -9 leaves the server behind, and the next start stops it.
		return func() {}
	}
	return release
}

func servesDir(pid int, _ string) bool { return alive(pid) }
