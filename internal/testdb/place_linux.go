package testdb

import (
	"os"
	"syscall"
)

const (
	inMemory = "/dev/shm"
	// roomy is more than a run of all tests takes, which is less than 1 GiB.
	roomy = 4 << 30
)

// place is where the meeting place is: in memory, if there is much of it. A database is some 550 files; to make and to drop them takes 30 ms
// there, and 145 ms on a disk. The size of the whole is what decides, for all processes alike, and not what of it is free.
func place() string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(inMemory, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) < roomy || syscall.Access(inMemory, 2) != nil { //nolint:gosec // a block has a size
		return os.TempDir()
	}
	return inMemory
}
