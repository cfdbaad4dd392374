package migrations

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// lockKey is the advisory lock that whoever migrates a database holds. Never change it: builds of
// different age must exclude each other.
const lockKey int64 = 0x6f7574626f78_01

const lockPoll = 100 * time.Millisecond

// parse reads the URL as a pool does, which takes its own settings (pool_max_conns) out of it: as it is one and the same for the service,
// they may be there, and PostgreSQL would refuse them.
func parse(databaseURL string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	return config, nil
}

// locked calls fn under the migration lock. The lock has a connection of its own, because a pool whose connections all wait for it
// leaves none to its holder, and is tried again and again rather than waited for in one statement: that statement's snapshot would
// stand in the way of a CREATE INDEX CONCURRENTLY by the holder.
func (r *runner) locked(ctx context.Context, databaseURL string, fn func(context.Context, *pgx.Conn) error) error {
	config, err := parse(databaseURL)
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	// Closing the session gives the lock back, whatever state it is in.
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if err := prepareConn(ctx, conn, publicSchema); err != nil {
		return err
	}
	// The session is idle while fn works: a server's idle_session_timeout would take the lock from it.
	if _, err := conn.Exec(ctx, `SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'`); err != nil {
		return fmt.Errorf("migration lock: %w", err)
	}

	deadline := time.Now().Add(r.lockWait)
	for {
		var got bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, lockKey).Scan(&got); err != nil {
			return fmt.Errorf("migration lock: %w", err)
		}
		if got {
			return fn(ctx, conn)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("another process has been migrating this database for %s: see pg_locks, locktype advisory", r.lockWait)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("migration lock: %w", ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}
