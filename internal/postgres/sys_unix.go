//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

func credential(acct account) *syscall.Credential {
	if !acct.other {
		return nil
	}
	return &syscall.Credential{Uid: acct.uid, Gid: acct.gid}
}

// baseAttr keeps the terminal's Ctrl-C from the child: the shutdown is ordered, and the database's turn comes last.
func baseAttr(acct account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: credential(acct)}
}

func sendSignal(p *os.Process, how stopSignal) error {
	switch how {
	case stopFast:
		return p.Signal(syscall.SIGINT)
	case stopImmediate:
		return p.Signal(syscall.SIGQUIT)
	default:
		return p.Kill()
	}
}

// alive reports whether a process with that id runs, whoever owns it. One that has ended and waits to be reaped, for ever
// where process 1 does not care (a container without an init), does not run.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return (err == nil || errors.Is(err, syscall.EPERM)) && !zombie(pid)
}

// zombie reads the state in Linux's /proc/PID/stat, which comes after the command in parentheses. Elsewhere there is no
// such file, and nothing is a zombie.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	end := bytes.LastIndexByte(stat, ')')
	return err == nil && end > 0 && len(stat) > end+2 && bytes.IndexByte([]byte("ZX"), stat[end+2]) >= 0
}

func interrupt(pid int) error { return syscall.Kill(pid, syscall.SIGINT) }

// lockFile takes the lock without waiting. The kernel gives it back when the process ends in any way.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// unlockFile says so to the kernel before it closes: a child that another goroutine is just starting has the file open, too, from
// its fork to its exec, and closing alone would leave the lock with it for that long.
func unlockFile(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	_ = f.Close()
}

func owner(info os.FileInfo) (uid, gid uint32, known bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return stat.Uid, stat.Gid, true
}

// watchdog does what Pdeathsig does where the kernel has no such thing: a shell reads from a pipe whose other end
// only this process holds, and so wakes up when this process has ended. release ends the shell first; closePipe is what the end
// of this process does.
func watchdog(pid int, acct account) (release, closePipe func(), err error) {
	cmd := exec.Command("/bin/sh", "-c", `read -r _; kill -INT "$1"`, "sh", strconv.Itoa(pid))
	cmd.SysProcAttr = baseAttr(acct)
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("watchdog: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("watchdog: %w", err)
	}
	closePipe = func() { _ = pipe.Close() }
	release = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		closePipe()
	}
	return release, closePipe, nil
}
