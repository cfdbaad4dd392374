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

// datum is what has to go. No shape of an error leaves it out.
const datum = "ada lovelace"

// petition is a rig whose consumer fails with what the table says has, as long as it has something. Its event is a dead letter of that.
func petition(t *testing.T, data string, opts ...outbox.Option) (*rig, int64) {
	t.Helper()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "ledger", func(ctx context.Context, tx pgx.Tx, e outbox.Received[part]) error {
		var says string
		if err := tx.QueryRow(ctx, `select coalesce((select says from says), '')`).Scan(&says); err != nil {
			return err
		}
		if says != "" {
			return errors.New(says)
		}
		_, err := tx.Exec(ctx, `insert into effects (consumer, key) values ('ledger', $1)`, e.Data.Name)
		return err
	}, append(opts, outbox.On("part.*"), outbox.MaxAttempts(2))...)
	r := newRig(t, reg)
	r.op = r.op.WithConsumers(reg)
	r.exec(`create table says (says text)`)
	r.exec(`insert into says values ($1)`, "no plan for "+datum)
	r.make("k", data)
	r.settle()
	return r, one[int64](r, `select id from discarded_jobs where state = 'dead'`)
}

func (r *rig) make(key, data string) {
	r.t.Helper()
	require.NoError(r.t, outbox.InTx(r.t.Context(), r.pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(r.t.Context(), tx, outbox.Event{Type: "part.made", Key: key, Data: json.RawMessage(data)})
		return err
	}))
}

// holding are the tables but the log that have the text anywhere in them.
func (r *rig) holding(text string) (found []string) {
	r.t.Helper()
	for _, table := range one[[]string](r, `select array_agg(c.oid::regclass::text order by c.relname) from pg_class c
		where c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace and c.relname !~ '^events' and c.relname not in ('says', 'effects')`) {
		if one[bool](r, fmt.Sprintf(`select exists (select from %s t where strpos(t::text, $1) > 0)`, table), text) {
			found = append(found, table)
		}
	}
	return found
}

// told is all that an operator is told.
func (r *rig) told(letter int64) string {
	r.t.Helper()
	l, err := r.op.Letter(r.t.Context(), letter)
	require.NoError(r.t, err)
	said := []any{l}
	tell := func(v any, err error) {
		r.t.Helper()
		require.NoError(r.t, err)
		said = append(said, v)
	}
	list, err := r.op.Letters(r.t.Context(), outbox.LetterFilter{}, 0, 100)
	tell(list, err)
	groups, err := r.op.LetterGroups(r.t.Context(), outbox.LetterFilter{}, nil, 100)
	tell(groups, err)
	audit, err := r.op.Audit(r.t.Context(), outbox.AuditFilter{}, 0, 100)
	tell(audit, err)
	timeline, err := r.op.Trace(r.t.Context(), l.CorrelationID)
	tell(timeline, err)
	event, err := r.op.Event(r.t.Context(), l.EventID)
	tell(event, err)
	operations, err := r.op.Operations(r.t.Context(), 0, 100)
	tell(operations, err)
	for _, op := range operations {
		detail, err := r.op.Operation(r.t.Context(), op.ID)
		tell(detail, err)
	}
	encoded, err := json.Marshal(said)
	require.NoError(r.t, err)
	return string(encoded)
}

// Wherever a person's data has come to with a letter, it is gone from there; that something was done, by whom and when stays.
func TestRedactTakesItFromEverywhere(t *testing.T) {
	t.Parallel()
	r, id := petition(t, `{"n": 1, "name": "bolt"}`)
	why := func(actor string) outbox.Action {
		return outbox.Action{Actor: actor, Reason: "this is: " + datum + "'s"}
	}
	// River keeps the errors of its jobs; the rig does not.
	r.exec(`update river_job set errors = array[jsonb_build_object('at', now(), 'attempt', 1, 'error', $1::text, 'trace', $1::text)] where kind = 'outbox_deliver'`, datum)
	edit := json.RawMessage(fmt.Sprintf(`{"n": 1, "name": %q, "lines": [{"sku": %q}], "any": {%q: 1}}`, datum, datum, datum))
	_, err := r.op.Rehearse(t.Context(), id, edit, why("bert"))
	require.NoError(t, err)
	_, err = r.op.Replay(t.Context(), id, edit, why("bert: the elder"))
	require.NoError(t, err)
	r.settle()

	// An operation of which it is the canary that fails again, and one that is stopped by hand.
	filter := outbox.LetterFilter{Error: "for " + datum}
	op, err := r.op.ReplayAll(t.Context(), outbox.BulkReplay{Filter: filter}, why("carl"))
	require.NoError(t, err)
	require.Equal(t, "stopped", r.finishOperation(op.ID).State)
	op, err = r.op.ReplayAll(t.Context(), outbox.BulkReplay{Filter: filter}, why("carl"))
	require.NoError(t, err)
	_, err = r.op.StopOperation(t.Context(), op.ID, why("dora"))
	require.NoError(t, err)
	r.finishOperation(op.ID)

	r.exec(`delete from says`)
	_, err = r.op.Replay(t.Context(), id, nil, why("anna"))
	require.NoError(t, err)
	r.settle()
	r.holds(`select state = 'replayed' from discarded_jobs`)
	r.holds(`select key = $1 from effects`, datum)
	require.Equal(t, []string{"audit", "delivery_log", "discarded_jobs", "event_edits", "operation_groups", "operations", "river_job"}, r.holding(datum))
	require.Contains(t, r.told(id), datum)
	before, err := r.op.Letter(t.Context(), id)
	require.NoError(t, err)
	done := one[string](r, `select string_agg(actor || ' ' || action, ', ' order by id) from audit`)
	log := one[string](r, `select string_agg(attempt || outcome || at, ', ' order by id) from delivery_log`)

	redaction := outbox.Redaction{Pointers: []string{"/name", "/lines/0/sku", "/any"}, Errors: true, Reasons: true}
	got, err := r.op.Redact(t.Context(), id, redaction, anna)
	require.NoError(t, err)
	require.Positive(t, got.Values)
	require.Positive(t, got.Errors)
	require.Positive(t, got.Reasons)
	require.Empty(t, r.holding(datum))
	require.NotContains(t, r.told(id), datum)

	l, err := r.op.Letter(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, before.Fingerprint, l.Fingerprint)
	require.Equal(t, outbox.RedactedText, l.Error)
	require.Len(t, l.Errors, len(before.Errors))
	for i, e := range l.Errors {
		require.Equal(t, outbox.AttemptError{Attempt: before.Errors[i].Attempt, At: before.Errors[i].At, Error: outbox.RedactedText}, e)
	}
	require.JSONEq(t, `{"n": 1, "name": "[redacted]", "lines": [{"sku": "[redacted]"}], "any": "[redacted]"}`, string(l.Data))
	require.JSONEq(t, string(l.Data), string(l.Edit.Data))
	require.JSONEq(t, `[{"op":"add","path":"/any","to":"[redacted]"},{"op":"add","path":"/lines","to":[{"sku":"[redacted]"}]},
		{"op":"replace","path":"/name","from":"[redacted]","to":"[redacted]"}]`, string(l.Edit.Diff))
	require.Equal(t, [2]string{"bert: the elder", outbox.RedactedText}, [2]string{l.Edit.Actor, l.Edit.Reason})
	require.Equal(t, before.Edit.At, l.Edit.At)
	require.NotNil(t, l.Edit.RedactedAt)
	require.Equal(t, done+", anna redact", one[string](r, `select string_agg(actor || ' ' || action, ', ' order by id) from audit`))
	require.Equal(t, log, one[string](r, `select string_agg(attempt || outcome || at, ', ' order by id) from delivery_log`))
	r.holds(`select array_agg(error order by id) = '{by bert: the elder: [redacted],by carl: [redacted],by anna: [redacted]}' from delivery_log where outcome = 'replayed'`)
	r.holds(`select stopped = 'by dora: [redacted]' and reason = '[redacted]' and actor = 'carl' from operations order by id desc limit 1`)
	r.holds(`select detail @> '{"pointers": ["/name", "/lines/0/sku", "/any"], "errors": true, "reasons": true, "consumer": "ledger"}' and reason = 'a test'
		from audit where action = 'redact'`)
	r.holds(`select bool_and(e ->> 'error' = '[redacted]' and e ->> 'trace' = '' and (e ->> 'attempt')::int = 1) from river_job, unnest(errors) e where kind = 'outbox_deliver'`)
	r.holds(`select data = '{"n": 1, "name": "bolt"}' from events`)
	r.agrees()

	// Once more finds nothing but the reason of the first time.
	again, err := r.op.Redact(t.Context(), id, redaction, anna)
	require.NoError(t, err)
	require.Equal(t, outbox.Redacted{LetterID: id, Reasons: 1}, *again)
	twice, err := r.op.Letter(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, l, twice)
}

// What somebody may still get is not taken away: the data when the letter is settled, errors and reasons at any time.
func TestRedactLeavesWhatIsNeeded(t *testing.T) {
	t.Parallel()
	r, id := petition(t, `{"n": 1, "name": "bolt"}`)
	_, err := r.op.Replay(t.Context(), id, json.RawMessage(`{"n": 2, "lines": [{"sku": "`+datum+`"}]}`), anna)
	require.NoError(t, err)
	name, lines := outbox.Redaction{Pointers: []string{"/name"}}, outbox.Redaction{Pointers: []string{"/lines/0"}}
	var conflict *outbox.ConflictError
	refused := func(what outbox.Redaction, says string) {
		t.Helper()
		what.Errors, what.Reasons = true, true
		_, err := r.op.Redact(t.Context(), id, what, anna)
		require.ErrorAs(t, err, &conflict)
		require.Contains(t, conflict.Reason, says)
	}
	refused(lines, "is replaying")
	r.settle()
	refused(lines, "is dead")
	require.Contains(t, r.holding(datum), "delivery_log", "nothing of it was done")
	r.holds(`select not exists (select from audit where action = 'redact')`)

	// The edit has taken the name out: of that, there is only what is told of the edit.
	got, err := r.op.Redact(t.Context(), id, name, anna)
	require.NoError(t, err)
	require.EqualValues(t, 1, got.Values)
	r.holds(`select diff @> '[{"op": "remove", "path": "/name", "from": "[redacted]"}]' and redacted_at is null from event_edits`)
	_, err = r.op.Redact(t.Context(), id, outbox.Redaction{Errors: true, Reasons: true}, anna)
	require.NoError(t, err)
	require.Equal(t, []string{"discarded_jobs", "event_edits"}, r.holding(datum), "the data alone")

	// What fails from now on says so again.
	_, err = r.op.Replay(t.Context(), id, nil, anna)
	require.NoError(t, err)
	r.settle()
	l, err := r.op.Letter(t.Context(), id)
	require.NoError(t, err)
	require.Contains(t, l.Error, datum)
	require.Equal(t, outbox.RedactedText, l.Errors[0].Error)

	// A job that is deleted leaves no error of its own: the last one, which was redacted, still is the cause.
	_, err = r.op.Redact(t.Context(), id, outbox.Redaction{Errors: true}, anna)
	require.NoError(t, err)
	_, err = r.op.Replay(t.Context(), id, nil, anna)
	require.NoError(t, err)
	r.exec(`update river_job set state = 'discarded', finalized_at = now() where state = 'available'`)
	buried, err := r.op.Letter(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, [3]string{"dead", outbox.RedactedText, l.Fingerprint}, [3]string{buried.State, buried.Error, buried.Fingerprint})

	r.dismiss(id)
	require.Equal(t, []string{"discarded_jobs", "event_edits"}, r.holding(datum))
	_, err = r.op.Redact(t.Context(), id, lines, anna)
	require.NoError(t, err, "its hold is settled, if not lifted")
	require.Empty(t, r.holding(datum))
}

// An event whose edit was redacted is not delivered with what is left of that.
func TestRedactedEditStandsInForNothing(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	var got []string
	broken := true
	outbox.HandleExternal(reg, "mail", func(_ context.Context, e outbox.Received[part]) (func(context.Context, pgx.Tx) error, error) {
		if broken {
			return nil, outbox.Permanent(errors.New("broken"))
		}
		got = append(got, e.Data.Name)
		return nil, nil //nolint:nilnil // no record
	}, outbox.On("part.*"))
	r := newRig(t, reg)
	r.make("k", `{"name": "bolt"}`)
	r.settle()
	id := one[int64](r, `select id from discarded_jobs`)
	broken = false
	_, err := r.op.Replay(t.Context(), id, json.RawMessage(`{"name": "`+datum+`"}`), anna)
	require.NoError(t, err)
	r.settle()
	again := func() {
		t.Helper()
		_, err := r.op.Backfill(t.Context(), "mail", outbox.Backfill{From: outbox.Beginning}, outbox.Action{Actor: "anna", Reason: "a test", Force: true})
		require.NoError(t, err)
	}
	again()
	r.settle()
	require.Equal(t, []string{datum, datum}, got, "an edit stays an edit")

	again()
	r.relay()
	r.drainAll()
	_, err = r.op.Redact(t.Context(), id, outbox.Redaction{Pointers: []string{"/name"}}, anna)
	var conflict *outbox.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Contains(t, conflict.Reason, "once more")
	r.settle()
	_, err = r.op.Redact(t.Context(), id, outbox.Redaction{Pointers: []string{"/name"}}, anna)
	require.NoError(t, err)
	again()
	r.settle()
	require.Equal(t, []string{datum, datum, datum, "bolt"}, got)

	// Nor is it in the letter, should it become one again; and an edit is one, as ever.
	broken = true
	again()
	r.settle()
	r.holds(`select state = 'dead' and data = '{"name": "bolt"}' from discarded_jobs`)
	broken = false
	_, err = r.op.Replay(t.Context(), id, json.RawMessage(`{"name": "nut"}`), anna)
	require.NoError(t, err)
	r.settle()
	require.Equal(t, "nut", got[len(got)-1])
	r.holds(`select redacted_at is null from event_edits`)
}

// Letters of one cause are counted together when of some it is not told any more what that was.
func TestRedactedErrorsStayOneCause(t *testing.T) {
	t.Parallel()
	r, first := petition(t, `{"n": 1}`)
	r.make("l", `{"n": 2}`)
	r.settle()
	newest := one[int64](r, `select max(id) from discarded_jobs`)
	require.NotEqual(t, first, newest)
	for _, id := range []int64{newest, first} {
		_, err := r.op.Redact(t.Context(), id, outbox.Redaction{Errors: true}, anna)
		require.NoError(t, err)
		groups, err := r.op.LetterGroups(t.Context(), outbox.LetterFilter{State: "dead"}, nil, 10)
		require.NoError(t, err)
		require.Len(t, groups, 1)
		require.EqualValues(t, 2, groups[0].Letters)
		require.Equal(t, outbox.RedactedText, groups[0].Error)
	}
	// Another cause that is redacted does not become this one.
	r.exec(`update says set says = 'the ledger is closed'`)
	r.make("m", `{"n": 3}`)
	r.settle()
	_, err := r.op.Redact(t.Context(), one[int64](r, `select max(id) from discarded_jobs`), outbox.Redaction{Errors: true}, anna)
	require.NoError(t, err)
	groups, err := r.op.LetterGroups(t.Context(), outbox.LetterFilter{State: "dead"}, nil, 10)
	require.NoError(t, err)
	require.Len(t, groups, 2)
}

// A consumer's letters go by its new name, or by that of its remains; its jobs and its log may not.
func TestRedactGoesByAllNames(t *testing.T) {
	t.Parallel()
	r, id := petition(t, `{"n": 1}`)
	r.exec(`update river_job set errors = array[jsonb_build_object('error', $1::text)] where kind = 'outbox_deliver'`, datum)
	_, err := r.op.Remove(t.Context(), "ledger", outbox.Action{Actor: "anna", Reason: "a test", Force: true})
	require.NoError(t, err)
	require.Equal(t, []string{"delivery_log", "discarded_jobs", "river_job"}, r.holding(datum))
	_, err = r.op.Redact(t.Context(), id, outbox.Redaction{Errors: true}, anna)
	require.NoError(t, err)
	require.Empty(t, r.holding(datum))
}

// The jobs come before the holds, as everywhere: who waits for a delivery keeps nobody from ending it.
func TestRedactLocksJobsFirst(t *testing.T) {
	t.Parallel()
	r, id := petition(t, `{"n": 1}`)
	job, err := r.op.Replay(t.Context(), id, nil, anna)
	require.NoError(t, err)
	delivery, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = delivery.Exec(t.Context(), `select from river_job where id = $1 for update`, job)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := r.op.Redact(t.Context(), id, outbox.Redaction{Errors: true}, anna)
		done <- err
	}()
	r.blocked(1)
	_, err = delivery.Exec(t.Context(), `select from holds for update nowait`)
	require.NoError(t, err)
	_, err = delivery.Exec(t.Context(), `select from discarded_jobs for update nowait`)
	require.NoError(t, err)
	require.NoError(t, delivery.Rollback(t.Context()))
	require.NoError(t, <-done)
}

func TestRedactRefuses(t *testing.T) {
	t.Parallel()
	r, id := petition(t, `{"n": 1, "lines": []}`)
	r.dismiss(id)
	_, err := r.op.Redact(t.Context(), id, outbox.Redaction{Errors: true}, outbox.Action{Actor: "anna", Reason: " "})
	require.ErrorIs(t, err, outbox.ErrReasonRequired)
	_, err = r.op.Redact(t.Context(), id+1, outbox.Redaction{Errors: true}, anna)
	require.ErrorIs(t, err, outbox.ErrNotFound)
	for _, c := range []struct {
		redaction outbox.Redaction
		fields    []string
	}{
		{outbox.Redaction{}, []string{""}},
		{outbox.Redaction{Pointers: make([]string, outbox.MaxPointers+1)}, []string{"/pointers"}},
		{outbox.Redaction{Pointers: []string{"/n", "email", "/~2"}}, []string{"/pointers/1", "/pointers/2"}},
		{outbox.Redaction{Pointers: []string{"/email", "/n", "/lines/0", "/n\x00"}, Errors: true}, []string{"/pointers/0", "/pointers/2", "/pointers/3"}},
	} {
		_, err := r.op.Redact(t.Context(), id, c.redaction, anna)
		var invalid *outbox.InvalidRedactionError
		require.ErrorAs(t, err, &invalid)
		var fields []string
		for _, f := range invalid.Fields {
			fields = append(fields, f.Pointer)
		}
		require.Equal(t, c.fields, fields)
	}
	r.holds(`select data = '{"n": 1, "lines": []}' and error <> '[redacted]' from discarded_jobs`)
	r.holds(`select not exists (select from audit where action = 'redact')`)
	_, err = r.op.Redact(t.Context(), id, outbox.Redaction{Pointers: []string{""}}, anna)
	require.NoError(t, err)
	r.holds(`select data = '"[redacted]"' from discarded_jobs`)
}
