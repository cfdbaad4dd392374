// Package migrations holds the schema's migrations and runs them: River's first, because the outbox's
// triggers stand on River's tables, then the outbox's, then, where it is asked for, the shop's.
//
// The files are goose's; an importer can run those in outbox/ with this package, or with a goose of its own.
// Each set keeps its history in a table of its own: river_migration, outbox_migrations, shop_migrations.
package migrations

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

//go:embed outbox/*.sql shop/*.sql
var files embed.FS

// The names of the sets, as Status gives them.
const (
	River  = "river"
	Outbox = "outbox"
	Shop   = "shop"
)

const publicSchema = "public"

// Options say what is migrated, and where to.
type Options struct {
	// Shop includes the tables of the shop, which are always in public.
	Shop bool

	// Schema takes the tables of the outbox and of River. It is created when missing. Empty: public.
	Schema string

	// Logger hears of each migration that is run. Nil: nobody does.
	Logger *slog.Logger

	// LockWait bounds how long another process that is migrating is waited for. 0 is two minutes.
	LockWait time.Duration
}

// FS returns the embedded files: outbox/*.sql and shop/*.sql.
func FS() fs.FS { return files }

// Fingerprint changes whenever a migration is added or changed, River's included.
func Fingerprint() string {
	fingerprint, err := fingerprint(files)
	if err != nil {
		panic(fmt.Sprintf("migrations: embedded files cannot be read: %v", err))
	}
	return fingerprint
}

func fingerprint(fsys fs.FS) (string, error) {
	hash := sha256.New()
	_, _ = fmt.Fprintf(hash, "river %d\n", len(riverVersions()))
	err := fs.WalkDir(fsys, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(fsys, path)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(hash, "%s %d\n", path, len(content))
		_, err = hash.Write(content)
		return err
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// set is one of ours: a folder of goose files, its history table and where its tables go.
type set struct {
	name   string
	table  string
	schema string
}

// runner is Options with the defaults filled in, and the files.
type runner struct {
	files    fs.FS
	schema   string
	shop     bool
	log      *slog.Logger
	lockWait time.Duration
}

func newRunner(fsys fs.FS, opts Options) *runner {
	logger := opts.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &runner{
		files:    fsys,
		schema:   cmp.Or(opts.Schema, publicSchema),
		shop:     opts.Shop,
		log:      logger,
		lockWait: cmp.Or(opts.LockWait, 2*time.Minute),
	}
}

func (r *runner) outboxSet() set {
	return set{name: Outbox, table: "outbox_migrations", schema: r.schema}
}

func (r *runner) shopSet() set {
	return set{name: Shop, table: "shop_migrations", schema: publicSchema}
}

// sets are ours in the order of going up.
func (r *runner) sets() []set {
	sets := []set{r.outboxSet()}
	if r.shop {
		sets = append(sets, r.shopSet())
	}
	return append(sets, r.next()...)
}

// searchPath lets unqualified names land in the schema, and find what is in public.
func searchPath(schema string) string {
	if schema == publicSchema {
		return publicSchema
	}
	return pgx.Identifier{schema}.Sanitize() + ", " + publicSchema
}
