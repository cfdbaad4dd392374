package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/telemetry"
)

// poolConns is room for every consumer's workers, the relay, the listener and the requests beside them.
// pool_max_conns in the URL overrides it.
const poolConns = 40

// openPool connects to the database.
func openPool(ctx context.Context, url string, pollOnly bool) (*pgxpool.Pool, error) {
	cfg, err := poolConfig(url, pollOnly)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the pool: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("reach the database: %w", err)
	}
	return pool, nil
}

// poolConfig reads the URL. What it sets goes before the defaults here. Its errors hold nothing of the URL: of one that is
// misspelt nobody can tell where the password ends.
func poolConfig(url string, pollOnly bool) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	var file *fs.PathError
	switch {
	case errors.As(err, &file):
		return nil, errors.New("DATABASE_URL names a file, or PostgreSQL's environment does, that cannot be read")
	case err != nil:
		return nil, errors.New("DATABASE_URL cannot be read: it is postgres://user:password@host:5432/database?option=value, " +
			"or host=… user=…, and in a URL's user and password each of : / ? # @ % is written as %3A %2F %3F %23 %40 %25")
	}
	if err := setExecMode(cfg.ConnConfig, url, pollOnly); err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	// pgxpool's own default is the number of processors, and at least 4.
	if own, err := pgxpool.ParseConfig(""); err == nil && cfg.MaxConns == own.MaxConns {
		cfg.MaxConns = poolConns
	}
	settings := map[string]string{"application_name": "pgoutbox"}
	if !pollOnly {
		// River's fetches and completions have no limits of their own. A pooler refuses these settings, or drops them: a
		// connection of the server is not this process's alone. There they are set for the role.
		settings["statement_timeout"] = "30s"
		settings["lock_timeout"] = "10s"
		settings["idle_in_transaction_session_timeout"] = "60s"
	}
	for name, value := range settings {
		if cfg.ConnConfig.RuntimeParams[name] == "" {
			cfg.ConnConfig.RuntimeParams[name] = value
		}
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	dialer := &net.Dialer{
		Timeout:         cfg.ConnConfig.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	cfg.ConnConfig.DialFunc = dialer.DialContext
	g := newGate()
	cfg.BeforeConnect, cfg.AfterConnect = g.before, g.after
	return cfg, nil
}

// setExecMode has pgx keep what it knows of a statement itself where a pooler is between: one that was prepared is not there
// when the next transaction comes to another connection of the server.
func setExecMode(cfg *pgx.ConnConfig, url string, pollOnly bool) error {
	switch mode := cfg.DefaultQueryExecMode; mode {
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol:
		// The engine's arguments are what a statement's description makes of them: a [16]byte is a uuid, a []byte JSON.
		return fmt.Errorf("default_query_exec_mode must not be %q: the types of arguments are then unknown; use cache_describe, which works through a pooler too", mode)
	}
	own, err := pgconn.ParseConfig(url) // it leaves what is pgx's among the parameters
	if err != nil {
		return err
	}
	if pollOnly && own.RuntimeParams["default_query_exec_mode"] == "" {
		cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return nil
}

func newLogger() *slog.Logger { return slog.New(telemetry.Logs(slog.NewJSONHandler(os.Stderr, nil))) }
