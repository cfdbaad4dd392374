package migrations_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/migrations"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// relations lists what is in the schemas that are not PostgreSQL's own, as schema.name.
func relations(ctx context.Context, t *testing.T, pool *pgxpool.Pool) map[string]bool {
	t.Helper()
	rows, err := pool.Query(ctx, `SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, name := range names {
		found[name] = true
	}
	return found
}

func wantCurrent(ctx context.Context, t *testing.T, pool *pgxpool.Pool, opts migrations.Options, want bool) {
	t.Helper()
	if got, err := migrations.Current(ctx, pool, opts); err != nil || got != want {
		t.Errorf("Current(%+v) = %v, %v; want %v", opts, got, err, want)
	}
}

func TestFourAtOnce(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	url := testdb.Empty(t)
	opts := migrations.Options{Shop: true}
	var group errgroup.Group
	for range 4 {
		group.Go(func() error { return migrations.Up(ctx, url, opts) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	pool := testdb.PoolOn(t, url)
	wantCurrent(ctx, t, pool, opts, true)
	found := relations(ctx, t, pool)
	for _, name := range []string{"public.river_job", "public.outbox", "public.events", "public.discarded_jobs", "public.users", "public.orders"} {
		if !found[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

// The service's URL is also that of its migrations, with whatever it says of the pool.
func TestURLWithSettingsOfThePool(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	u, err := url.Parse(testdb.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("pool_max_conns", "6")
	u.RawQuery = q.Encode()
	if err := migrations.Up(ctx, u.String(), migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := migrations.Status(ctx, u.String(), migrations.Options{}); err != nil {
		t.Error(err)
	}
	if err := migrations.Down(ctx, u.String(), migrations.Options{}); err != nil {
		t.Error(err)
	}
}

func TestDownAndUpAgain(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	url := testdb.New(t)
	pool := testdb.PoolOn(t, url)
	opts := migrations.Options{Shop: true}
	before := relations(ctx, t, pool)

	pending := func() (n int, river bool) {
		rows, err := migrations.Status(ctx, url, opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			if row.Pending() {
				n++
				river = river || row.Set == migrations.River
			}
		}
		return n, river
	}
	last := 0
	for {
		if err := migrations.Down(ctx, url, opts); err != nil {
			t.Fatal(err)
		}
		n, river := pending()
		if n <= last {
			t.Fatalf("a step down left %d pending, as before", n)
		}
		last = n
		wantCurrent(ctx, t, pool, opts, false)
		if river {
			break
		}
	}
	for name := range relations(ctx, t, pool) {
		if name != "public.outbox_migrations" && name != "public.shop_migrations" {
			t.Errorf("%s was left behind", name)
		}
	}
	if err := migrations.Up(ctx, url, opts); err != nil {
		t.Fatal(err)
	}
	after := relations(ctx, t, pool)
	for name := range before {
		if !after[name] {
			t.Errorf("%s did not come back", name)
		}
	}
	if n, _ := pending(); n != 0 {
		t.Errorf("%d are pending after going up", n)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	url := testdb.Empty(t)
	opts := migrations.Options{Shop: true}
	rows, err := migrations.Status(ctx, url, opts)
	if err != nil {
		t.Fatal(err)
	}
	order := ""
	for i, row := range rows {
		if !row.Pending() || row.Name == "" || row.Version < 1 {
			t.Errorf("on an empty database: %+v", row)
		}
		if i == 0 || rows[i-1].Set != row.Set {
			order += row.Set + " "
		}
	}
	if order != "river outbox shop " {
		t.Errorf("order %s", order)
	}
	if found := relations(ctx, t, testdb.PoolOn(t, url)); len(found) > 0 {
		t.Errorf("status left %v", found)
	}
	started := time.Now()
	var log bytes.Buffer
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	if err := migrations.Up(ctx, url, opts); err != nil {
		t.Fatal(err)
	}
	if rows, err = migrations.Status(ctx, url, opts); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if age := row.AppliedAt.Sub(started); age < -time.Minute || age > 2*time.Minute {
			t.Errorf("%+v is not of now", row)
		}
	}
	for _, want := range []string{"set=river", "set=outbox", "set=shop"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s", want)
		}
	}
}

func TestOtherSchema(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	url := testdb.Empty(t)
	pool := testdb.PoolOn(t, url)
	opts := migrations.Options{Schema: `my "outbox"`}
	wantCurrent(ctx, t, pool, opts, false)
	for range 2 {
		if err := migrations.Up(ctx, url, opts); err != nil {
			t.Fatal(err)
		}
	}
	wantCurrent(ctx, t, pool, opts, true)
	wantCurrent(ctx, t, pool, migrations.Options{}, false)
	for name := range relations(ctx, t, pool) {
		if !strings.HasPrefix(name, opts.Schema+".") {
			t.Errorf("%s is outside the schema", name)
		}
	}
	// One in public beside it, and the shop, do not get in each other's way.
	both := migrations.Options{Shop: true}
	if err := migrations.Up(ctx, url, both); err != nil {
		t.Fatal(err)
	}
	wantCurrent(ctx, t, pool, both, true)
	found := relations(ctx, t, pool)
	for _, name := range []string{"public.outbox", opts.Schema + ".outbox", "public.users", opts.Schema + ".river_job"} {
		if !found[name] {
			t.Errorf("%s is missing", name)
		}
	}
	// The shop is still there, so River's schema stays although the outbox's is gone.
	for found["public.outbox"] {
		if err := migrations.Down(ctx, url, migrations.Options{}); err != nil {
			t.Fatal(err)
		}
		found = relations(ctx, t, pool)
	}
	if found["public.outbox"] || !found["public.users"] || !found["public.river_job"] || !found[opts.Schema+".outbox"] {
		t.Errorf("after going down without the shop: %v", found)
	}
}

func TestLockWaitIsBounded(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	url := testdb.Empty(t)
	holder, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Close(ctx) }()
	if _, err := holder.Exec(ctx, `SELECT pg_advisory_lock($1)`, migrations.LockKey); err != nil {
		t.Fatal(err)
	}
	err = migrations.Up(ctx, url, migrations.Options{LockWait: time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "another process has been migrating") {
		t.Fatalf("under another's lock: %v", err)
	}
	if found := relations(ctx, t, testdb.PoolOn(t, url)); len(found) > 0 {
		t.Errorf("it migrated all the same: %v", found)
	}
}

func TestFailureIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	url := testdb.Empty(t)
	files := fstest.MapFS{
		"outbox/00001_one.sql": {Data: []byte("-- +goose Up\nCREATE TABLE one ();\n-- +goose Down\nDROP TABLE one;\n")},
		"outbox/00002_two.sql": {Data: []byte("-- +goose Up\nCREATE TABLE two ();\nSELECT no_such_function();\n-- +goose Down\nDROP TABLE two;\n")},
	}
	if err := migrations.UpFS(ctx, files, url, migrations.Options{}); err == nil || !strings.Contains(err.Error(), "no_such_function") {
		t.Fatalf("a migration that fails: %v", err)
	}
	before, err := migrations.FingerprintFS(files)
	if err != nil {
		t.Fatal(err)
	}
	pool := testdb.PoolOn(t, url)
	if found := relations(ctx, t, pool); !found["public.one"] || found["public.two"] {
		t.Errorf("after the failure: %v", found)
	}
	files["outbox/00002_two.sql"].Data = []byte("-- +goose Up\nCREATE TABLE two ();\n-- +goose Down\nDROP TABLE two;\n")
	if after, err := migrations.FingerprintFS(files); err != nil || after == before {
		t.Errorf("the fingerprint of other files is the same: %v", err)
	}
	if err := migrations.UpFS(ctx, files, url, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := migrations.DownFS(ctx, files, url, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	if found := relations(ctx, t, pool); !found["public.one"] || found["public.two"] {
		t.Errorf("after one step down: %v", found)
	}
}
