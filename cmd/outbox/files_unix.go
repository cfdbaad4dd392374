//go:build unix

package main

import (
	"math"
	"syscall"
)

// openFiles is how many files, and with them connections, the process may have open. The runtime has raised it as far as it may.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fewFiles
	}
	return int(min(uint64(limit.Cur), math.MaxInt32)) //nolint:unconvert // some systems count in signed numbers
}
