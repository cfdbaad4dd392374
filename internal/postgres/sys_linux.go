package postgres

import (
	"fmt"
	"os"
	"syscall"
)

// serverAttr makes the kernel send SIGINT, a fast shutdown, to the server when the thread that forks it ends.
func serverAttr(acct account) *syscall.SysProcAttr {
	attr := baseAttr(acct)
	attr.Pdeathsig = syscall.SIGINT
	return attr
}

func guard(int, account) (release func()) { return func() {} }

// servesDir reports whether the process is a server on that cluster: a postmaster works in its data directory.
func servesDir(pid int, cluster string) bool {
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		// Another user's process hides its folder; it cannot be told apart, so it counts.
		return os.IsPermission(err) && alive(pid)
	}
	dir, err := os.Stat(cluster)
	return err == nil && os.SameFile(cwd, dir)
}
