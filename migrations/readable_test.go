package migrations_test

import (
	"testing"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/migrations"
)

// Rows that were taken before their times were looked at become such as can be read, and are moved by the relay like any other.
func TestWhatCannotBeReadIsMended(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	url := testdb.New(t)
	pool := testdb.PoolOn(t, url)
	constrained := func() (n int) {
		if err := pool.QueryRow(ctx, `SELECT count(*) FROM pg_constraint WHERE conname ~ '^(outbox|scheduled)_(seq|occurred_at|not_before|scheduled_at)_check$'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for constrained() > 0 {
		if err := migrations.Down(ctx, url, migrations.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{
		`INSERT INTO outbox (seq, id, type, key, data, correlation_id, occurred_at, not_before) OVERRIDING SYSTEM VALUE
		 SELECT CASE WHEN n < 3 THEN n - 2 ELSE nextval(pg_get_serial_sequence('outbox', 'seq')) END, gen_random_uuid(), 'a', 'k', '{}', 'c', at, at FROM unnest('{infinity,-infinity,20000-01-01,0044-03-15 BC,2026-01-01}'::timestamptz[]) WITH ORDINALITY AS u (at, n)`,
		`INSERT INTO scheduled (id, type, key, data, correlation_id, scheduled_at, not_before)
		 SELECT gen_random_uuid(), 'a', 'k', '{}', 'c', at, at FROM unnest('{infinity,-infinity,20000-01-01,2026-01-01}'::timestamptz[]) AS at`,
		`INSERT INTO scheduled (id, type, key, data, correlation_id, not_before)
		 SELECT gen_random_uuid(), 'a', 'k', (repeat('[', n) || repeat(']', n))::jsonb, 'c', 'infinity' FROM unnest('{10000,10001}'::int[]) AS n`,
	} {
		if _, err := pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := migrations.Up(ctx, url, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	var readable, untouched, aside int
	if err := pool.QueryRow(ctx, `SELECT count(*) FILTER (WHERE extract(year FROM at AT TIME ZONE 'UTC') BETWEEN 1 AND 9999), count(*) FILTER (WHERE at = '2026-01-01'), (SELECT count(*) FROM quarantine) FROM (
		SELECT occurred_at FROM outbox WHERE seq > 0 UNION ALL SELECT not_before FROM outbox UNION ALL SELECT scheduled_at FROM scheduled UNION ALL SELECT not_before FROM scheduled) AS x (at)`).
		Scan(&readable, &untouched, &aside); err != nil {
		t.Fatal(err)
	}
	if readable != 5+5+5+5 || untouched != 4 || aside != 1 || constrained() != 2 {
		t.Errorf("%d times can be read, %d are as they were, %d events are set aside, %d constraints", readable, untouched, aside, constrained())
	}
}
