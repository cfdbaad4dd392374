package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pgoutbox/pgoutbox/internal/postgres"
)

// follow replaces the server's data by a copy of the primary's and starts it as its standby.
func (s *Server) follow(ctx context.Context, primary *Server) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if err := s.kill(); err != nil {
		return err
	}
	if err := os.RemoveAll(s.cluster()); err != nil {
		return fmt.Errorf("remove the old data: %w", err)
	}
	cmd, err := postgres.Command(ctx, s.dir, filepath.Join(s.binDir, "pg_basebackup"),
		"--pgdata="+s.cluster(), "--wal-method=stream", "--checkpoint=fast", "--no-sync", "--no-password", "--username="+postgres.User,
		"--host=127.0.0.1", fmt.Sprintf("--port=%d", primary.port))
	if err != nil {
		return err
	}
	password, _ := primary.base.User.Password()
	cmd.Env = append(cmd.Env, "PGPASSWORD="+password)
	if err := errors.Join(os.Mkdir(s.cluster(), 0o700), give(cmd, s.cluster())); err != nil {
		return fmt.Errorf("make room for the copy: %w", err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, out)
	}
	conninfo := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s sslmode=disable connect_timeout=2", primary.port, postgres.User, password)
	for path, content := range map[string]string{
		filepath.Join(s.cluster(), "standby.signal"): "",
		// It replaces the primary's, which may say for whom to wait.
		filepath.Join(s.cluster(), "postgresql.auto.conf"): "primary_conninfo = " + quote(conninfo) + "\n",
		filepath.Join(s.family.dir, "password"):            password + "\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("make a standby of the copy: %w", err)
		}
		if filepath.Dir(path) == s.cluster() {
			if err := give(cmd, path); err != nil {
				return fmt.Errorf("make a standby of the copy: %w", err)
			}
		}
	}
	return s.restart(ctx)
}
