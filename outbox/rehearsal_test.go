package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// rehearsing is a rig whose consumer does to its tables what work says; without that it fails, so that event 1 is a dead letter.
func rehearsing(t *testing.T, opts ...outbox.Option) (*rig, *func(context.Context, pgx.Tx, outbox.Received[note]) error) {
	t.Helper()
	var work func(context.Context, pgx.Tx, outbox.Received[note]) error
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "ledger", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if work == nil {
			return outbox.Permanent(errors.New("broken"))
		}
		return work(ctx, tx, e)
	}, append(opts, outbox.On("note.*"))...)
	r := newRig(t, reg)
	r.op = r.op.WithConsumers(reg)
	r.exec(`create table accounts (owner text primary key, cents int not null)`)
	r.exec(`insert into accounts values ('ada', 10), ('bob', 20), ('eve', 30), ('fay', 40)`)
	r.exec(`create table lines (owner text not null references accounts deferrable initially deferred, cents int)`)
	r.append("k", 1)
	r.settle()
	return r, &work
}

func (r *rig) rehearse(data string) *outbox.Rehearsal {
	r.t.Helper()
	var edit json.RawMessage
	if data != "" {
		edit = json.RawMessage(data)
	}
	got, err := r.op.Rehearse(r.t.Context(), r.letter(1).ID, edit, anna)
	require.NoError(r.t, err)
	return got
}

// everything is what each table holds, but for the audit, which says that there was a rehearsal.
func (r *rig) everything() map[string]string {
	r.t.Helper()
	return one[map[string]string](r, `select jsonb_object_agg(c.relname, md5(query_to_xml(format('select md5(t::text) from %s t order by 1', c.oid::regclass), true, false, '')::text))
		from pg_class c where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace and c.relname <> 'audit'`)
}

// A rehearsal shows every row that the handler writes, in savepoints too, and every event that it appends, and changes nothing.
func TestRehearsalShowsWhatAReplayWouldDo(t *testing.T) {
	t.Parallel()
	r, work := rehearsing(t)
	*work = func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		outbox.Batch(ctx).Queue(`update accounts set cents = cents + $1 where owner = 'ada'`, e.Data.N)
		if err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `with gone as (delete from accounts where owner = 'bob') insert into accounts values ('gus', 5)`)
			return err
		}); err != nil {
			return err
		}
		undone := errors.New("undone")
		if err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `delete from accounts where owner = 'eve'`)
			return errors.Join(err, undone)
		}); !errors.Is(err, undone) {
			return err
		}
		for _, sql := range []string{
			`select from accounts where owner = 'fay' for update`,
			`insert into accounts values ('ida', 7)`, `update accounts set cents = 8 where owner = 'ida'`,
			`insert into accounts values ('hal', 5)`, `delete from accounts where owner = 'hal'`,
			`insert into lines values ('fay', 7)`,
			`select outbox_append('part.made', 'k', '{"of": "sql"}')`,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "part.made", Key: "k", Data: map[string]int{"n": e.Data.N}})
		return err
	}
	before := r.everything()
	got := r.rehearse(`{"n": 100}`)
	require.Equal(t, before, r.everything())

	require.Equal(t, outbox.Succeeds, got.Outcome, got.Error)
	require.Nil(t, got.ProcessedAt)
	require.Equal(t, "dead", got.State)
	require.Equal(t, []outbox.TableChanges{{Table: "accounts", Inserted: 2, Updated: 1, Deleted: 1}, {Table: "lines", Inserted: 1}}, got.Tables)
	changes := map[string]string{}
	for _, c := range got.Changes {
		changes[string(c.Before)+" → "+string(c.After)] = c.Table + " " + c.Operation
	}
	require.Equal(t, map[string]string{
		`{"owner":"ada","cents":10} → {"owner":"ada","cents":110}`: "accounts update",
		`{"owner":"bob","cents":20} → `:                            "accounts delete",
		` → {"owner":"gus","cents":5}`:                             "accounts insert",
		` → {"owner":"ida","cents":8}`:                             "accounts insert",
		` → {"owner":"fay","cents":7}`:                             "lines insert",
	}, changes)
	require.Len(t, got.Events, 2)
	require.JSONEq(t, `{"n": 100}`, string(got.Events[0].Data))
	require.JSONEq(t, `{"of": "sql"}`, string(got.Events[1].Data))
	r.holds(`select count(*) = 1 and bool_and(actor = 'anna' and target = 'dead letter ' || $1 and detail @> '{"outcome": "succeeds", "edited": true}')
		from audit where action = 'rehearse'`, fmt.Sprint(got.LetterID))

	_, err := r.op.Replay(t.Context(), got.LetterID, json.RawMessage(`{"n": 100}`), anna)
	require.NoError(t, err)
	r.settle()
	r.holds(`select string_agg(owner || cents, ' ' order by owner) = 'ada110 eve30 fay40 gus5 ida8' from accounts`)
	require.NotNil(t, r.rehearse("").ProcessedAt, "a replay would do nothing now")
	r.agrees()
}

// Rows that others have locked too, large ones, many, and those of tables without a primary key or with partitions.
func TestRehearsalFindsRowsOfEveryKind(t *testing.T) {
	t.Parallel()
	r, work := rehearsing(t)
	r.exec(`create table parts (day int, n int, text text, primary key (day, n)) partition by range (day)`)
	r.exec(`create table parts_1 partition of parts for values from (0) to (10)`)
	r.exec(`create table parts_2 partition of parts for values from (10) to (20)`)
	r.exec(`insert into parts select i % 20, i, '' from generate_series(1, 400) i`)
	r.exec(`insert into lines values ('ada', 1)`)
	*work = func(ctx context.Context, tx pgx.Tx, _ outbox.Received[note]) error {
		for _, sql := range []string{
			`update parts set text = 'new' where n <= 300`, `update lines set cents = 2`,
			`update accounts set cents = 0 where owner = 'ada'`, `insert into accounts select repeat('x', 1000), 0`,
			`create temporary table scratch (i int) on commit drop`, `insert into scratch values (1)`,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	}
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select from accounts where owner = 'ada' for key share`)
	require.NoError(t, err)
	got := r.rehearse("")
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, outbox.Succeeds, got.Outcome, got.Error)
	require.Equal(t, []outbox.TableChanges{
		{Table: "accounts", Inserted: 1, Updated: 1},
		{Table: "lines", Inserted: 1, Deleted: 1, Note: "it has no primary key: an updated row is shown as one that is deleted and one that is inserted"},
		{Table: "parts", Updated: 300},
	}, got.Tables)
	require.Len(t, got.Changes, outbox.MaxRehearsedRows)
	for _, c := range got.Changes {
		if c.Table == "parts" {
			require.Equal(t, "update", c.Operation)
			require.Contains(t, string(c.Before), `"text":""`)
			require.Contains(t, string(c.After), `"text":"new"`)
		}
	}

	*work = func(ctx context.Context, tx pgx.Tx, _ outbox.Received[note]) error {
		_, err := tx.Exec(ctx, `update parts set text = (select string_agg(md5(i::text), '') from generate_series(1, 3000) i) where n = 1`)
		return err
	}
	got = r.rehearse("")
	require.Len(t, got.Changes, 1)
	require.True(t, got.Changes[0].TooLarge)
	require.Nil(t, got.Changes[0].After)
	require.Nil(t, got.Changes[0].Before)
}

// What would fail says why: the handler's error, data that does not decode, a panic, what only the commit would find, and what somebody
// has locked.
func TestRehearsalThatFails(t *testing.T) {
	t.Parallel()
	r, work := rehearsing(t)
	got := r.rehearse("")
	require.Equal(t, [2]string{outbox.Fails, "broken"}, [2]string{got.Outcome, got.Error})

	run := func(sql string) func(context.Context, pgx.Tx, outbox.Received[note]) error {
		return func(ctx context.Context, tx pgx.Tx, _ outbox.Received[note]) error {
			_, err := tx.Exec(ctx, sql)
			return err
		}
	}
	*work = run(`insert into lines values ('nobody', 1)`)
	got = r.rehearse("")
	require.Equal(t, outbox.Fails, got.Outcome)
	require.Contains(t, got.Error, "23503")
	require.Empty(t, got.Changes)
	require.Equal(t, outbox.Fails, r.rehearse(`{"n": "one"}`).Outcome)
	*work = func(context.Context, pgx.Tx, outbox.Received[note]) error { panic("at the disco") }
	require.Contains(t, r.rehearse("").Error, "at the disco")

	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `update accounts set cents = 0`)
	require.NoError(t, err)
	*work = run(`update accounts set cents = 1`)
	require.Equal(t, outbox.Locked, r.rehearse("").Outcome)
	require.NoError(t, tx.Rollback(t.Context()))

	*work = run(`truncate accounts cascade`)
	got = r.rehearse("")
	require.Equal(t, outbox.Succeeds, got.Outcome, got.Error)
	r.holds(`select count(*) = 4 from accounts`)
	r.agrees()
}

// What cannot be rehearsed is refused, and nothing of it is called.
func TestRehearsalIsRefused(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	calls := 0
	outbox.HandleExternal(reg, "mail", func(context.Context, outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		calls++
		return nil, outbox.Permanent(errors.New("no such address"))
	}, outbox.On("note.*"))
	r := newRig(t, reg)
	r.append("k", 1)
	r.settle()
	calls = 0
	id := r.letter(1).ID
	refused := func(op *outbox.Operator, id int64, says string) {
		t.Helper()
		_, err := op.Rehearse(t.Context(), id, nil, anna)
		var conflict *outbox.ConflictError
		require.ErrorAs(t, err, &conflict)
		require.Contains(t, conflict.Reason, says)
	}
	refused(r.op, id, "this process runs no consumers")
	refused(r.op.WithConsumers(outbox.NewRegistry()), id, "no code")
	refused(r.op.WithConsumers(reg), id, "calls the outside")
	require.Zero(t, calls)
	_, err := r.op.WithConsumers(reg).Rehearse(t.Context(), id+1, nil, anna)
	require.ErrorIs(t, err, outbox.ErrNotFound)
	_, err = r.op.WithConsumers(reg).Rehearse(t.Context(), id, json.RawMessage(`{`), anna)
	var invalid *outbox.InvalidEventError
	require.ErrorAs(t, err, &invalid)
	r.holds(`select not exists (select from audit)`)

	r.exec(`insert into consumer_subscriptions (consumer, pattern) values ('mail', '*')`)
	refused(r.op.WithConsumers(reg), id, "go beyond")
}
