package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

// process is a postmaster that this process has forked.
type process struct {
	pid  int
	cmd  *exec.Cmd
	done chan struct{} // closed once it is reaped
	err  error         // valid after done
}

// startProcess forks the server. The parent-death signal hangs on the thread that forked, not on the
// process, so a goroutine keeps that thread for itself until the server has ended.
func startProcess(cmd *exec.Cmd, acct account) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		cmd.SysProcAttr = serverAttr(acct)
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("start %s: %w", cmd.Path, err)
			return
		}
		p.pid = cmd.Process.Pid
		unguard := guard(p.pid, acct)
		started <- nil
		p.err = cmd.Wait()
		unguard()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// failure says how the process ended.
func (p *process) failure() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

type stopSignal int

const (
	stopFast stopSignal = iota
	stopImmediate
	stopKill
)

func (p *process) signal(how stopSignal) {
	// An error means that it has ended already, which done tells.
	_ = sendSignal(p.cmd.Process, how)
}

// openLog opens the server's log for appending. It is emptied when it has grown large: nobody else rotates it.
func openLog(path string) (*os.File, error) {
	const large = 16 << 20
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > large {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	return f, nil
}
