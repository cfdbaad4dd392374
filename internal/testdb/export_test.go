package testdb

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

const EnvDir = envDir

// KillKeeper kills the keeper of that folder, and returns when its lock is free.
func KillKeeper(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, keeperLock))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(data))
	if err != nil {
		return fmt.Errorf("the keeper's id: %w", err)
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
