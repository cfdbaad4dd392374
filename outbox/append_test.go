package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// TestWhatTheOutboxAcceptsArrives holds Append, outbox_append and the log to one another: whatever Append takes, the
// tables take, and what it refuses, it refuses with the field's name and without harm to the transaction.
func TestWhatTheOutboxAcceptsArrives(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	text := rapid.OneOf(rapid.String(), rapid.StringN(0, 300, 400), rapid.StringMatching(`[a-z._:/-]{0,140}`),
		rapid.SampledFrom([]string{"", "a", "a.b", "a\x00", "\xff", strings.Repeat("k", 255), strings.Repeat("k", 256), strings.Repeat("ü", 128)}))
	data := rapid.OneOf(
		rapid.Map(text, func(s string) any { return s }),
		rapid.Map(text, func(s string) any { return json.RawMessage(`"` + s + `"`) }),
		rapid.SampledFrom([]any{
			nil, 1, json.RawMessage(`1e400`), json.RawMessage(`1e131072`), json.RawMessage(`1e131071`), json.RawMessage(`-0.1e-16383`),
			json.RawMessage(`1e-16383`), json.RawMessage(`0e99999`), json.RawMessage(`1e999999999999`), json.RawMessage(`"\ud83d\ude00"`),
			json.RawMessage(`"\ud83d"`), json.RawMessage(`"\ude00"`), json.RawMessage(`"\ud83d\u0041"`), json.RawMessage(`"\u0000"`),
			json.RawMessage(`"\\u0000"`), json.RawMessage(`{"a" : [1, 2]}`), json.RawMessage(`{`), func() {},
			json.RawMessage(strings.Repeat("[", 1000) + strings.Repeat("]", 1000)), json.RawMessage(strings.Repeat("[", 1001) + strings.Repeat("]", 1001)),
		}))
	event := rapid.Custom(func(t *rapid.T) outbox.Event {
		e := outbox.Event{Type: "note.taken", Key: "k", Data: 1}
		switch rapid.IntRange(0, 6).Draw(t, "odd field") {
		case 0:
			e.Type = text.Draw(t, "type")
		case 1:
			e.Key = text.Draw(t, "key")
		case 2:
			e.Data = data.Draw(t, "data")
		case 3:
			e.CorrelationID = text.Draw(t, "correlation_id")
		case 4:
			e.TraceParent = text.Draw(t, "traceparent")
		case 5:
			e.Source = text.Draw(t, "source")
		case 6:
			e.SchemaVersion = rapid.IntRange(-1, 40000).Draw(t, "schema_version")
		}
		return e
	})
	rapid.Check(t, func(rt *rapid.T) {
		e := event.Draw(rt, "event")
		var refused *outbox.InvalidEventError
		err := pgx.BeginFunc(t.Context(), r.pool, func(tx pgx.Tx) error {
			if _, err := outbox.Append(t.Context(), tx, e); errors.As(err, &refused) {
				if refused.Field == "" {
					return errors.New("no field is named")
				}
			} else if err != nil {
				return fmt.Errorf("refused by the table alone: %w", err)
			}
			_, err := tx.Exec(t.Context(), `select 1`)
			return err
		})
		if err != nil {
			rt.Fatal(err)
		}
		if !json.Valid(mustJSON(e.Data)) || e.Source != "" || e.SchemaVersion != 0 {
			return // SQL cannot say it
		}
		_, err = r.pool.Exec(t.Context(), `select outbox_append($1, $2, $3::text::jsonb, nullif($4, ''), null, nullif($5, ''))`,
			e.Type, e.Key, string(mustJSON(e.Data)), e.CorrelationID, e.TraceParent)
		if (err == nil) != (refused == nil) && !strings.HasPrefix(refused.Error(), "outbox: event data must not nest") {
			rt.Fatalf("Append says %v, outbox_append says %v", refused, err)
		}
	})
	accepted := one[int64](r, `select count(*) from outbox`)
	r.relay()
	require.Equal(t, accepted, one[int64](r, `select count(*) from events`))
	r.holds(`select not exists (select from quarantine)`)
}

func mustJSON(data any) []byte {
	encoded, _ := json.Marshal(data)
	return encoded
}

func TestDataIsMeasuredAsPostgreSQLWritesIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	for name, data := range map[string]string{
		"list":    `[1` + strings.Repeat(`,1`, 349_524) + `]`,
		"object":  `{"a":"` + strings.Repeat("x", outbox.MaxDataBytes-10) + `"}`,
		"escapes": `"` + strings.Repeat(`\u003c`, outbox.MaxDataBytes-2) + `"`,
		"control": `"` + strings.Repeat(`\u0001`, 174_762) + `"`,
		"umlauts": `"` + strings.Repeat(`\u00fc`, 524_287) + `"`,
		"numbers": `[1e131071` + strings.Repeat(`,1e131071`, 6) + `]`,
	} {
		require.NoError(t, r.appendData("\n "+data+" "), name) // blanks are not kept
		longer := strings.Replace(strings.Replace(strings.Replace(data, `"`, `"xxxxxx`, 1), `[`, `[1,1,`, 1), `1,1,1e`, `1e131071,1e`, 1)
		var refused *outbox.InvalidEventError
		require.ErrorAs(t, r.appendData(longer), &refused, name)
		require.Equal(t, "data", refused.Field)
	}
}

func (r *rig) appendData(data string) error {
	return pgx.BeginFunc(r.t.Context(), r.pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(r.t.Context(), tx, outbox.Event{Type: "a", Key: "k", Data: json.RawMessage(data)})
		return err
	})
}

func TestProducersOfAKeyCommitInTheOrderOfTheirNumbers(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	first, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = outbox.Append(t.Context(), first, outbox.Event{Type: "note.taken", Key: "k", Data: note{1}})
	require.NoError(t, err)
	var second sync.WaitGroup
	for _, appendOther := range []func(){
		func() { r.append("k", 2) },
		func() { r.exec(`select outbox_append('note.taken', 'k', '{"n": 2}')`) },
	} {
		second.Go(appendOther)
	}
	r.blocked(2)
	r.append("another", 0)
	_, err = outbox.Append(t.Context(), first, outbox.Event{Type: "note.taken", Key: "k", Data: note{1}})
	require.NoError(t, err)
	require.NoError(t, first.Commit(t.Context()))
	second.Wait()
	r.holds(`select array_agg((data->>'n')::int order by seq) = '{1,1,2,2}' from outbox where key = 'k'`)
}

// TestAppendAllTakesKeysInOneOrder: two transactions that append the same keys in opposite order do not deadlock.
func TestAppendAllTakesKeysInOneOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	var both sync.WaitGroup
	for _, order := range [][]string{{"a", "b", "c", "d"}, {"d", "c", "b", "a"}} {
		both.Go(func() {
			var events []outbox.Event
			for _, k := range order {
				events = append(events, outbox.Event{Type: "a", Key: k, Data: 1})
			}
			for range 100 {
				if err := pgx.BeginFunc(t.Context(), r.pool, func(tx pgx.Tx) error {
					_, err := outbox.AppendAll(t.Context(), tx, events...)
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	both.Wait()
	r.holds(`select count(*) = 800 from outbox`)
}

func TestHandlersAppendsAreWrittenAtTheEndSorted(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	early := 0
	outbox.Handle(reg, "splitter", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		for _, k := range []string{"b", "a", "c"} {
			if _, err := outbox.Append(ctx, tx, outbox.Event{Type: "part.made", Key: k, Data: e.Data}); err != nil {
				return err
			}
		}
		var n int
		if err := tx.QueryRow(ctx, `select (select count(*) from outbox) + (select count(*) from pg_locks where locktype = 'advisory' and objsubid = 1 and pid = pg_backend_pid())`).Scan(&n); err != nil {
			return err
		}
		early += n
		if e.Data.N == 1 {
			return errors.New("what it appended goes with it")
		}
		return nil
	}, outbox.On("note.*"), outbox.MaxAttempts(1), outbox.Unordered())
	r := newRig(t, reg)
	ctx := outbox.WithCorrelationID(t.Context(), "request-7")
	require.NoError(t, outbox.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		for n := range 3 {
			if _, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.taken", Key: "k", Data: note{n}}); err != nil {
				return err
			}
		}
		return nil
	}))
	r.relay()
	r.drainAll()
	require.Zero(t, early, "a handler's append was written, or locked its key, before the end")
	r.holds(`select count(*) = 6 and bool_and((o.data->>'n')::int <> 1 and o.correlation_id = 'request-7' and e.data = o.data)
		from outbox o join events e on e.id = o.causation_id`)
	r.relay()
	r.agrees()
}

// TestHandlersThatAppendCrosswise runs two drains that append two keys in opposite order, at once.
func TestHandlersThatAppendCrosswise(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	keys := map[string][]string{"one": {"a", "b"}, "two": {"b", "a"}}
	for name, order := range keys {
		outbox.Handle(reg, name, func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
			for _, k := range order {
				if _, err := outbox.Append(ctx, tx, outbox.Event{Type: "part.made", Key: k, Data: e.Data}); err != nil {
					return err
				}
			}
			return nil
		}, outbox.On("note.*"))
	}
	r := newRig(t, reg)
	for n := range 40 {
		r.append(fmt.Sprint("k", n), n)
	}
	r.relay()
	var drains sync.WaitGroup
	for name := range keys {
		drains.Go(func() {
			for lane := range int16(outbox.Lanes) {
				if _, err := r.Drain(t.Context(), outbox.Lane{Consumer: name, Lane: lane}, 0, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	drains.Wait()
	r.holds(`select count(*) = 160 from outbox`)
	r.holds(`select deadlocks = 0 from pg_stat_database where datname = current_database()`)
}

func TestInvalidEventErrorNamesTheFieldAndSQLTheColumn(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	insert := func(column, value string) string {
		return fmt.Sprintf(`insert into outbox (id, type, key, data, correlation_id, %s) overriding system value
			values (gen_random_uuid(), 'a', 'k', '1', 'c', %s)`, column, value)
	}
	for column, call := range map[string]string{
		"type":           `select outbox_append('no type', 'k', '1')`,
		"key":            `select outbox_append('a', '', '1')`,
		"correlation_id": `select outbox_append('a', 'k', '1', 'no id')`,
		"data":           `select outbox_append('a', 'k', null)`,
		"traceparent":    `select outbox_append('a', 'k', '1', null, null, repeat('x', 256))`,
		"source":         insert("source", `repeat('x', 128)`),
		"schema_version": insert("schema_version", "0"),
		"occurred_at":    insert("occurred_at", "'infinity'"),
		"not_before":     insert("not_before", "'10000-01-01 00:00:00+00'"),
		"seq":            insert("seq", "0"),
	} {
		_, err := r.pool.Exec(t.Context(), call)
		var refused *pgconn.PgError
		require.ErrorAs(t, err, &refused, column)
		require.Contains(t, refused.ConstraintName+refused.ColumnName, column)
	}
	for _, tooMuch := range []string{`to_jsonb(repeat('x', 1048575))`, `(repeat('[', 10001) || repeat(']', 10001))::jsonb`} {
		_, err := r.pool.Exec(t.Context(), `select outbox_append('a', 'k', `+tooMuch+`)`)
		var refused *pgconn.PgError
		require.ErrorAs(t, err, &refused, tooMuch)
		require.Equal(t, "data", refused.ColumnName)
		require.Equal(t, "outbox_data_check", refused.ConstraintName)
	}
	id := one[uuid.UUID](r, `select outbox_append('a', 'k', '1')`)
	require.Equal(t, uuid.Version(7), id.Version())
	r.holds(`select correlation_id = id::text from outbox`)
}

// lostCommit is a transaction whose connection is lost in the commit, as pgx tells of it.
type lostCommit struct{ pgx.Tx }

type lost struct{}

func (lost) Error() string     { return "conn closed" }
func (lost) SafeToRetry() bool { return true }

func (t lostCommit) Begin(context.Context) (pgx.Tx, error) { return t, nil }
func (lostCommit) Commit(context.Context) error            { return lost{} }
func (lostCommit) Rollback(context.Context) error          { return nil }

// What is not known to have failed is not safe to try again, whatever the driver says of the connection.
func TestInTxDoesNotCallALostCommitSafe(t *testing.T) {
	t.Parallel()
	err := outbox.InTx(t.Context(), lostCommit{}, func(pgx.Tx) error { return nil })
	require.ErrorIs(t, err, lost{})
	require.False(t, pgconn.SafeToRetry(err))
	err = outbox.InTx(t.Context(), lostCommit{}, func(pgx.Tx) error { return lost{} })
	require.True(t, pgconn.SafeToRetry(err), "what failed before it is what it is")
}
