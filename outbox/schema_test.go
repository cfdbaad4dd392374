package outbox_test

import (
	"context"
	"errors"
	neturl "net/url"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/migrations"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// TestSchemaOfItsOwn: everything works beside unrelated tables of the same names, and beside an outbox in public.
func TestSchemaOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, beside := range map[string]func(t *testing.T) string{
		"unrelated tables": func(t *testing.T) string {
			url := testdb.Empty(t)
			conn, err := pgx.Connect(t.Context(), url)
			require.NoError(t, err)
			_, err = conn.Exec(t.Context(), `create table events (x int); create table outbox (x int); create table holds (x int); create table cursors (x int);
				create table river_job (x int); create table consumers (x int); create table discarded_jobs (x int)`)
			require.NoError(t, err)
			require.NoError(t, conn.Close(t.Context()))
			return url
		},
		"another outbox": func(t *testing.T) string { return testdb.New(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := beside(t)
			const schema = outbox.Schema("Mine_too")
			require.NoError(t, migrations.Up(t.Context(), url, migrations.Options{Schema: string(schema)}))
			reg := outbox.NewRegistry()
			broken := true
			outbox.Handle(reg, "c", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
				if broken && e.Data.N == 1 {
					return errors.New("broken")
				}
				if _, err := outbox.Append(ctx, tx, outbox.Event{Type: "part.made", Key: e.Key, Data: e.Data}); err != nil {
					return err
				}
				return effect(ctx, tx, e)
			}, outbox.On("note.*"), outbox.MaxAttempts(2))
			outbox.HandleExternal(reg, "mail", func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
				return recorded(e), nil
			}, outbox.On("note.*"))
			// The engine's pool finds public first; the test looks into the schema.
			r := newRigOn(t, testdb.PoolOn(t, url), reg, outbox.Config{Schema: schema})
			seen := *r
			u, err := neturl.Parse(url)
			require.NoError(t, err)
			query := u.Query()
			query.Set("search_path", `"Mine_too",public`)
			u.RawQuery = query.Encode()
			seen.pool = testdb.PoolOn(t, u.String())
			require.NoError(t, pgx.BeginFunc(t.Context(), r.pool, func(tx pgx.Tx) error {
				for n := range 3 {
					if _, err := schema.Append(t.Context(), tx, outbox.Event{Type: "note.taken", Key: "k", Data: note{n}}); err != nil {
						return err
					}
				}
				return nil
			}))
			r.exec(`select "Mine_too".outbox_append('note.taken', 'k', '{"n": 3}')`)
			seen.settle()
			seen.applied("c", "k", 0)
			seen.applied("mail", "k", 0, 1, 2, 3)
			seen.holds(`select state = 'dead' from discarded_jobs`)
			seen.agrees()
			require.NoError(t, r.Maintain(t.Context()))
			require.NoError(t, r.MakePartitions(t.Context()))
			seen.holds(`select count(*) = 10 from pg_inherits where inhparent = '"Mine_too".processed_events'::regclass`)
			broken = false
			_, err = r.op.Replay(t.Context(), seen.letter(1).ID, nil, anna)
			require.NoError(t, err)
			seen.settle()
			seen.applied("c", "k", 0, 1, 2, 3)
			seen.holds(`select count(*) = 4 from events where type = 'part.made'`)
			seen.agrees()
		})
	}
}
