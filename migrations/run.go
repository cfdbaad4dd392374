package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// Up brings River's schema, the outbox's and, with Shop, the shop's to the newest version. It may be called
// from several processes at once: one does the work and the others find it done. The URL has to reach
// PostgreSQL itself or through a session pooler; a transaction pooler loses the lock.
func Up(ctx context.Context, databaseURL string, opts Options) error {
	return newRunner(embedded(), opts).up(ctx, databaseURL)
}

// Down takes one step back: the shop's newest migration and the outbox's newest. Only when a call finds neither
// set with anything left does it remove River's schema, with its jobs.
func Down(ctx context.Context, databaseURL string, opts Options) error {
	return newRunner(embedded(), opts).down(ctx, databaseURL)
}

func (r *runner) up(ctx context.Context, databaseURL string) error {
	return r.locked(ctx, databaseURL, func(ctx context.Context, lock *pgx.Conn) error {
		if err := r.createSchema(ctx, lock); err != nil {
			return err
		}
		if err := r.river(ctx, databaseURL, rivermigrate.DirectionUp, nil); err != nil {
			return err
		}
		for _, set := range r.sets() {
			// A lock that is lost, because its connection is, protects nothing any more.
			if err := lock.Ping(ctx); err != nil {
				return fmt.Errorf("migration lock: %w", err)
			}
			err := r.goose(ctx, databaseURL, set, func(p *goose.Provider) error {
				results, err := p.Up(ctx)
				for _, result := range results {
					r.report(set, result)
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("migrate %s up: %w", set.name, err)
			}
		}
		return nil
	})
}

func (r *runner) down(ctx context.Context, databaseURL string) error {
	return r.locked(ctx, databaseURL, func(ctx context.Context, lock *pgx.Conn) error {
		stepped, left := false, false
		for _, set := range append(r.next(), r.shopSet(), r.outboxSet()) {
			applied, err := appliedVersions(ctx, lock, set.schema, set.table)
			if err != nil {
				return err
			}
			if len(applied) == 0 {
				continue
			}
			if set.name == Shop && !r.shop {
				left = true
				continue
			}
			if err := r.stepDown(ctx, databaseURL, set); err != nil {
				return err
			}
			stepped = true
		}
		if stepped || left {
			return nil
		}
		return r.river(ctx, databaseURL, rivermigrate.DirectionDown, &rivermigrate.MigrateOpts{TargetVersion: -1})
	})
}

func (r *runner) stepDown(ctx context.Context, databaseURL string, set set) error {
	err := r.goose(ctx, databaseURL, set, func(p *goose.Provider) error {
		result, err := p.Down(ctx)
		if result != nil {
			r.report(set, result)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("migrate %s down: %w", set.name, err)
	}
	return nil
}

// goose calls fn with a provider for the set, on a connection whose unqualified names are the set's.
func (r *runner) goose(ctx context.Context, databaseURL string, set set, fn func(*goose.Provider) error) (err error) {
	config, err := parse(databaseURL)
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config.ConnConfig, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		return prepareConn(ctx, conn, set.schema)
	}))
	db.SetMaxOpenConns(2)
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := r.provider(db, set)
	if err != nil {
		return err
	}
	return fn(p)
}

func (r *runner) provider(db *sql.DB, set set) (*goose.Provider, error) {
	folder, err := fs.Sub(r.files, set.name)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, folder,
		goose.WithTableName(set.table),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()),
	)
}

// river runs River's migrations one transaction each: they cannot all run in one.
func (r *runner) river(ctx context.Context, databaseURL string, direction rivermigrate.Direction, opts *rivermigrate.MigrateOpts) error {
	config, err := parse(databaseURL)
	if err != nil {
		return err
	}
	config.MaxConns, config.MinConns, config.MinIdleConns = 2, 0, 0
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		return prepareConn(ctx, conn, r.schema)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("migrate river: %w", err)
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: r.schema, Logger: r.log})
	if err != nil {
		return fmt.Errorf("migrate river: %w", err)
	}
	result, err := migrator.Migrate(ctx, direction, opts)
	if err != nil {
		return fmt.Errorf("migrate river %s: %w", direction, err)
	}
	for _, v := range result.Versions {
		r.log.Info("migrated", "set", River, "version", v.Version, "name", v.Name, "direction", string(direction), "took", v.Duration)
	}
	return nil
}

// prepareConn lifts the timeouts that an application sets on its connections, because a migration may take its time,
// but not for a lock: whoever waits for one makes everybody behind it wait too.
func prepareConn(ctx context.Context, conn *pgx.Conn, schema string) error {
	_, err := conn.Exec(ctx, `SELECT set_config('search_path', $1, false), set_config('lock_timeout', '30s', false),
		set_config('statement_timeout', '0', false), set_config('idle_in_transaction_session_timeout', '0', false),
		set_config('timezone', 'UTC', false)`, searchPath(schema))
	if err != nil {
		return fmt.Errorf("prepare connection: %w", err)
	}
	return nil
}

func (r *runner) createSchema(ctx context.Context, conn *pgx.Conn) error {
	// Not IF NOT EXISTS alone: it asks for the right to create schemas even where there is nothing to do.
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, r.schema).Scan(&exists); err != nil {
		return fmt.Errorf("look for schema %s: %w", r.schema, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS `+pgx.Identifier{r.schema}.Sanitize()); err != nil {
		return fmt.Errorf("create schema %s: %w", r.schema, err)
	}
	return nil
}

func (r *runner) report(set set, result *goose.MigrationResult) {
	r.log.Info("migrated", "set", set.name, "version", result.Source.Version, "name", path.Base(result.Source.Path),
		"direction", result.Direction, "took", result.Duration.Round(time.Millisecond))
}
