package migrations

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const riverTable = "river_migration"

// StatusRow is one migration of one set.
type StatusRow struct {
	Set       string    `json:"set"`
	Version   int64     `json:"version"`
	Name      string    `json:"name"`
	AppliedAt time.Time `json:"applied_at,omitzero"` // zero: pending
}

// Pending reports whether the migration has yet to be run.
func (s StatusRow) Pending() bool { return s.AppliedAt.IsZero() }

// Status lists all migrations in the order in which Up runs them. It changes nothing and takes no lock.
func Status(ctx context.Context, databaseURL string, opts Options) ([]StatusRow, error) {
	return newRunner(embedded(), opts).status(ctx, databaseURL)
}

// Current reports whether every migration that this build knows is applied; the database may be ahead of it. It costs one query.
func Current(ctx context.Context, pool *pgxpool.Pool, opts Options) (bool, error) {
	return newRunner(embedded(), opts).current(ctx, pool)
}

func (r *runner) status(ctx context.Context, databaseURL string) (rows []StatusRow, err error) {
	config, err := parse(databaseURL)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("migration status: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	known, err := r.known()
	if err != nil {
		return nil, err
	}
	applied := map[string]map[int64]time.Time{}
	if applied[River], err = appliedVersions(ctx, conn, r.schema, riverTable); err != nil {
		return nil, err
	}
	for _, set := range r.sets() {
		if applied[set.name], err = appliedVersions(ctx, conn, set.schema, set.table); err != nil {
			return nil, err
		}
	}
	for i := range known {
		known[i].AppliedAt = applied[known[i].Set][known[i].Version]
	}
	return known, nil
}

func (r *runner) current(ctx context.Context, pool *pgxpool.Pool) (bool, error) {
	known, err := r.known()
	if err != nil {
		return false, err
	}
	parts := []string{`SELECT 'river', version FROM ` + pgx.Identifier{r.schema, riverTable}.Sanitize() + ` WHERE line = 'main'`}
	for _, set := range r.sets() {
		parts = append(parts, `SELECT '`+set.name+`', version_id FROM `+pgx.Identifier{set.schema, set.table}.Sanitize()+` WHERE is_applied AND version_id > 0`)
	}
	type version struct {
		Set     string
		Version int64
	}
	rows, _ := pool.Query(ctx, strings.Join(parts, ` UNION ALL `)) // its error comes again from the rows
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[version])
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("migrations current: %w", err)
	}
	applied := make(map[version]bool, len(found))
	for _, v := range found {
		applied[v] = true
	}
	for _, row := range known {
		if !applied[version{row.Set, row.Version}] {
			return false, nil
		}
	}
	return true, nil
}

// known lists the migrations of this build, in order, without a time.
func (r *runner) known() ([]StatusRow, error) {
	rows := append([]StatusRow(nil), riverVersions()...)
	for _, set := range r.sets() {
		names, err := fs.Glob(r.files, set.name+"/*.sql")
		if err != nil {
			return nil, fmt.Errorf("migrations of %s: %w", set.name, err)
		}
		for _, name := range names {
			version, err := goose.NumericComponent(name)
			if err != nil {
				return nil, fmt.Errorf("migration %s: %w", name, err)
			}
			rows = append(rows, StatusRow{Set: set.name, Version: version, Name: path.Base(name)})
		}
	}
	return rows, nil
}

// riverVersions are those of the River that is compiled in; they need no database.
var riverVersions = sync.OnceValue(func() []StatusRow {
	migrator, err := rivermigrate.New(riverpgxv5.New(nil), nil)
	if err != nil {
		panic(fmt.Sprintf("migrations: river's own migrations: %v", err))
	}
	var rows []StatusRow
	for _, m := range migrator.AllVersions() {
		rows = append(rows, StatusRow{Set: River, Version: int64(m.Version), Name: m.Name})
	}
	return rows
})

// appliedVersions reads a history table, goose's or River's; one that does not exist is empty.
func appliedVersions(ctx context.Context, conn *pgx.Conn, schema, table string) (map[int64]time.Time, error) {
	query := `SELECT version_id, tstamp AT TIME ZONE 'UTC' FROM %s WHERE is_applied AND version_id > 0`
	if table == riverTable {
		query = `SELECT version::bigint, created_at FROM %s`
	}
	rows, err := conn.Query(ctx, fmt.Sprintf(query, pgx.Identifier{schema, table}.Sanitize()))
	if err != nil && !missing(err) {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	applied := map[int64]time.Time{}
	if err != nil {
		return applied, nil
	}
	var (
		version int64
		at      time.Time
	)
	_, err = pgx.ForEachRow(rows, []any{&version, &at}, func() error {
		applied[version] = at.UTC()
		return nil
	})
	if err != nil && !missing(err) {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	return applied, nil
}

// missing reports that a table, or a column that a later version adds, is not there.
func missing(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && (pgErr.Code == "42P01" || pgErr.Code == "42703" || pgErr.Code == "3F000")
}
