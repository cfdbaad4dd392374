package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/pgoutbox/pgoutbox/internal/postgres"
	"github.com/pgoutbox/pgoutbox/migrations"
)

//go:embed schema.sql
var benchSchema string

const (
	cleanupTimeout = 30 * time.Second
	// poolSize is enough for River's 100 workers and what it does besides; every system gets the same.
	poolSize = 110
)

// settings are those of a server that may lose nothing, with the memory of a small one. What they do not name is
// PostgreSQL's default.
var settings = map[string]string{
	"fsync":              "on",
	"synchronous_commit": "on",
	"full_page_writes":   "on",
	"autovacuum":         "on",
	"shared_buffers":     "2GB",
	"max_wal_size":       "8GB",
	"max_connections":    "200",
	"wal_compression":    "off",
	"random_page_cost":   "4",
	"checkpoint_timeout": "5min",
	// The latency is read from the commit times of state and effect. All systems pay the same for it.
	"track_commit_timestamp": "on",
}

// server is the PostgreSQL under test, with the databases that the cases clone.
type server struct {
	url       string // of its maintenance database
	prefix    string
	databases int
	close     func() error
}

// startServer starts a private server in a folder of its own under dir, or takes the one of databaseURL.
func startServer(ctx context.Context, dir, databaseURL string) (*server, error) {
	s := &server{url: databaseURL, prefix: "bench_" + strings.ToLower(rand.Text()[:8]), close: func() error { return nil }}
	if databaseURL == "" {
		if err := s.startPrivate(ctx, dir); err != nil {
			return nil, err
		}
	}
	if err := s.makeTemplates(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *server) startPrivate(ctx context.Context, dir string) error {
	folder, err := os.MkdirTemp(dir, "pgoutbox-bench-")
	if err != nil {
		return err
	}
	// The server may run as another user, who has to pass through.
	if err := os.Chmod(folder, 0o711); err != nil {
		return err
	}
	data := filepath.Join(folder, "data")
	running, err := postgres.Start(ctx, postgres.Config{DataDir: data, Fsync: true, Settings: settings})
	if err != nil {
		return errors.Join(err, postgres.Remove(data), os.RemoveAll(folder))
	}
	s.url = running.URL("postgres")
	s.close = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		return errors.Join(running.Stop(ctx), postgres.Remove(data), os.RemoveAll(folder))
	}
	return nil
}

func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	var failed error
	for _, t := range []template{withOutbox, withRiver} {
		failed = errors.Join(failed, s.exec(ctx, `DROP DATABASE IF EXISTS `+s.name(t)+` WITH (FORCE)`))
	}
	return errors.Join(failed, s.close())
}

// template says what is in a database before a case begins.
type template string

const (
	// withOutbox has our tables, and River's beneath them.
	withOutbox template = "outbox"
	// withRiver has River's alone: without the triggers that ours have on them.
	withRiver template = "river"
)

func (s *server) name(t template) string { return s.prefix + "_" + string(t) }

func (s *server) makeTemplates(ctx context.Context) error {
	for t, migrate := range map[template]func(ctx context.Context, url string) error{
		withOutbox: func(ctx context.Context, url string) error {
			return migrations.Up(ctx, url, migrations.Options{})
		},
		withRiver: migrateRiver,
	} {
		if err := s.exec(ctx, `CREATE DATABASE `+s.name(t)+` TEMPLATE template0`); err != nil {
			return fmt.Errorf("create a database: %w", err)
		}
		address, err := s.address(s.name(t))
		if err != nil {
			return err
		}
		if err := migrate(ctx, address); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		conn, err := pgx.Connect(ctx, address)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, benchSchema)
		if err := errors.Join(err, conn.Close(ctx)); err != nil {
			return fmt.Errorf("create the tables of the bench: %w", err)
		}
	}
	return nil
}

func migrateRiver(ctx context.Context, url string) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// database clones the template and returns the URL of the clone and a func that drops it.
func (s *server) database(ctx context.Context, t template) (address string, drop func() error, err error) {
	s.databases++
	name := fmt.Sprintf("%s_%d", s.prefix, s.databases)
	// A backend of the connections that made the template, or autovacuum, may still be on its way out of it.
	for {
		err = s.exec(ctx, `CREATE DATABASE `+name+` TEMPLATE `+s.name(t))
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "55006" || !pause(ctx, 50*time.Millisecond) {
			break
		}
	}
	if err != nil {
		return "", nil, fmt.Errorf("create a database: %w", err)
	}
	drop = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		return s.exec(ctx, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`)
	}
	address, err = s.address(name)
	if err != nil {
		return "", nil, errors.Join(err, drop())
	}
	return address, drop, nil
}

func (s *server) address(database string) (string, error) {
	u, err := url.Parse(s.url)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", errors.New("the database URL is no postgres:// URL")
	}
	u.Path = "/" + database
	return u.String(), nil
}

func (s *server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// openPool is the pool that every system gets.
func openPool(ctx context.Context, address string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	config.MaxConns = poolSize
	return pgxpool.NewWithConfig(ctx, config)
}

// pause waits and reports false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
