package postgres

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Command is a program to run beside a server, such as pg_basebackup: in its data directory, which is made when needed, as the account
// that owns the cluster there or would own a new one, and without the caller's PG* variables. A program without a slash is one of
// PostgreSQL's. Its Dir is where the directory's contents really are. It is killed when ctx ends.
func Command(ctx context.Context, dataDir, program string, args ...string) (*exec.Cmd, error) {
	if !strings.Contains(program, "/") {
		binDir, err := binaries(ctx, "")
		if err != nil {
			return nil, err
		}
		program = filepath.Join(binDir, program)
	}
	dir, acct, err := prepareDir(dataDir)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", filepath.Base(program), err)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = serverEnv()
	cmd.SysProcAttr = baseAttr(acct)
	return cmd, nil
}
