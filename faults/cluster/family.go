package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	pollEvery = 5 * time.Millisecond
	// familyTimeout is how long processes may take to heed a signal that they cannot refuse: they may be waiting for the disk.
	familyTimeout = 15 * time.Second
)

// family are the processes of one program that work in a folder: a postmaster and its children. They are found by where they work
// and not by their parent, which orphans have lost.
type family struct {
	program string // without links
	dir     string // likewise
}

func newFamily(program, dir string) (family, error) {
	program, err := filepath.EvalSymlinks(program)
	if err != nil {
		return family{}, fmt.Errorf("find the program: %w", err)
	}
	return family{program: program, dir: dir}, nil
}

// pids lists those that live. What cannot be looked at belongs to somebody else, or is gone.
func (f family) pids() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if at, err := os.Readlink("/proc/" + e.Name() + "/cwd"); err != nil || at != f.dir && !strings.HasPrefix(at, f.dir+"/") {
			continue
		}
		if program, err := os.Readlink("/proc/" + e.Name() + "/exe"); err == nil && program == f.program {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill ends all of them with SIGKILL, and returns when none is left.
func (f family) kill() error {
	err := within(familyTimeout, func() bool {
		pids := f.pids()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
	if err != nil {
		return fmt.Errorf("kill what runs in %s: %w", f.dir, err)
	}
	return nil
}

// hang stops all of them with SIGSTOP. A child that is being forked meanwhile was in no list, so what counts is the second one
// in which all stand still: when it was made nobody was left to fork.
func (f family) hang() error {
	quiet := 0
	err := within(familyTimeout, func() bool {
		quiet++
		for _, pid := range f.pids() {
			if state(pid) != 'T' {
				_ = syscall.Kill(pid, syscall.SIGSTOP)
				quiet = 0
			}
		}
		return quiet == 2
	})
	if err != nil {
		return fmt.Errorf("hang what runs in %s: %w", f.dir, err)
	}
	return nil
}

// wake lets those that hang go on, and returns when none hangs.
func (f family) wake() error {
	err := within(familyTimeout, func() bool {
		awake := true
		for _, pid := range f.pids() {
			if state(pid) == 'T' {
				_ = syscall.Kill(pid, syscall.SIGCONT)
				awake = false
			}
		}
		return awake
	})
	if err != nil {
		return fmt.Errorf("wake what runs in %s: %w", f.dir, err)
	}
	return nil
}

// state is the letter in /proc/PID/stat, which comes after the command in parentheses; 'X' where there is no such process.
func state(pid int) byte {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	end := bytes.LastIndexByte(stat, ')')
	if err != nil || end < 0 || len(stat) < end+3 {
		return 'X'
	}
	return stat[end+2]
}

var errTimeout = errors.New("it took too long")

func within(d time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), d, errTimeout)
	defer cancel()
	return until(ctx, func() (bool, error) { return done(), nil })
}

// until asks again and again. It returns nil when done says so; its error when ctx ends first, with the last one of done.
func until(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
