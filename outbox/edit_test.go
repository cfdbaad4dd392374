package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type part struct {
	N     int    `json:"n"`
	Name  string `json:"name"`
	Lines []struct {
		SKU string `json:"sku"`
	} `json:"lines"`
	Sizes map[string]struct{ W int } `json:"sizes"`
	Any   any                        `json:"any"`
	Since time.Time                  `json:"since,omitzero"`
	Owner *uuid.UUID                 `json:"owner"`
}

// parts is a rig with a dead letter of an event with that data.
func parts(t *testing.T, data string) (*rig, int64, *outbox.Registry) {
	t.Helper()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "ledger", func(context.Context, pgx.Tx, outbox.Received[part]) error {
		return outbox.Permanent(errors.New("broken"))
	}, outbox.On("part.*"))
	r := newRig(t, reg)
	require.NoError(t, outbox.InTx(t.Context(), r.pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(t.Context(), tx, outbox.Event{Type: "part.made", Key: "k", Data: json.RawMessage(data)})
		return err
	}))
	r.settle()
	return r, one[int64](r, `select id from discarded_jobs where state = 'dead'`), reg
}

// An edit is kept with what it changed, by whom and why, and an edit of an edit is compared with the event in the log.
func TestEditIsKeptWithItsDiff(t *testing.T) {
	t.Parallel()
	r, id, reg := parts(t, `{"n": 1, "name": "bolt", "lines": [{"sku": "a"}, {"sku": "b"}, {"sku": "c"}], "any": {"a/b": 1.50, "~": null}}`)
	for _, c := range []struct{ data, diff string }{
		{`{"n": 1, "name": "bolt", "lines": [{"sku": "a"}, {"sku": "b"}, {"sku": "c"}], "any": {"~": null, "a/b": 1.50}}`, `[]`},
		{
			`{"n": 2, "lines": [{"sku": "x"}], "any": {"a/b": 1.5, "new": [1]}}`,
			`[{"op":"replace","path":"/any/a~1b","from":1.50,"to":1.5},{"op":"add","path":"/any/new","to":[1]},{"op":"remove","path":"/any/~0","from":null},
			 {"op":"replace","path":"/lines/0/sku","from":"a","to":"x"},{"op":"remove","path":"/lines/2","from":{"sku":"c"}},
			 {"op":"remove","path":"/lines/1","from":{"sku":"b"}},{"op":"replace","path":"/n","from":1,"to":2},{"op":"remove","path":"/name","from":"bolt"}]`,
		},
		{`{"n": 1, "name": "bolt", "lines": [{"sku": "a"}, {"sku": "b"}, {"sku": "c"}, {}], "any": []}`, `[{"op":"replace","path":"/any","from":{"a/b":1.50,"~":null},"to":[]},{"op":"add","path":"/lines/3","to":{}}]`},
	} {
		got, err := r.op.WithConsumers(reg).ReplayEdited(t.Context(), id, json.RawMessage(c.data), anna)
		require.NoError(t, err)
		require.True(t, got.Checked)
		diff, err := json.Marshal(got.Diff)
		require.NoError(t, err)
		sorted := func(s string) (all []any) {
			require.NoError(t, json.Unmarshal([]byte(s), &all))
			return all
		}
		require.ElementsMatch(t, sorted(c.diff), sorted(string(diff)))
		letter, err := r.op.Letter(t.Context(), id)
		require.NoError(t, err)
		require.NotNil(t, letter.Edit)
		require.JSONEq(t, string(diff), string(letter.Edit.Diff))
		require.Equal(t, [2]string{"anna", "a test"}, [2]string{letter.Edit.Actor, letter.Edit.Reason})
		r.settle()
		r.holds(`select state = 'dead' from discarded_jobs`)
	}
}

// What the code would not take as it is is refused, with its place, unless that is forced; without the code nobody knows.
func TestEditThatTheCodeDoesNotTake(t *testing.T) {
	t.Parallel()
	r, id, reg := parts(t, `{"n": 1}`)
	op := r.op.WithConsumers(reg)
	for data, pointers := range map[string][]string{
		`{"n": 1, "colour": "red", "lines": [{"sku": "a"}, {"SKU": "a", "x": 1}], "sizes": {"s": {"w": 1, "h": 2}}}`: {"/colour", "/lines/1/x", "/sizes/s/h"},
		`{"n": "one"}`:            {"/n"},
		`{"lines": [{"sku": 1}]}`: {"/lines/sku"},
		`{"owner": "nobody"}`:     {""},
		`[]`:                      {""},
	} {
		_, err := op.ReplayEdited(t.Context(), id, json.RawMessage(data), anna)
		var invalid *outbox.InvalidDataError
		require.ErrorAs(t, err, &invalid, data)
		var got []string
		for _, f := range invalid.Fields {
			got = append(got, f.Pointer)
		}
		require.Equal(t, pointers, got, data)
		require.NotContains(t, err.Error(), "nobody")
		rehearsal, err := op.Rehearse(t.Context(), id, json.RawMessage(data), anna)
		require.NoError(t, err)
		require.Equal(t, invalid.Fields, rehearsal.Problems)
	}
	r.holds(`select not exists (select from event_edits)`)
	_, err := op.ReplayEdited(t.Context(), id, json.RawMessage(`{"any": {"x": {"y": 1}}, "since": "2026-01-31T12:00:00Z", "owner": null}`), anna)
	require.NoError(t, err)
	r.settle()
	got, err := r.op.ReplayEdited(t.Context(), id, json.RawMessage(`{"colour": "red"}`), anna)
	require.NoError(t, err)
	require.False(t, got.Checked, "nobody here knows")
	r.settle()
	forced := anna
	forced.Force = true
	got, err = op.ReplayEdited(t.Context(), id, json.RawMessage(`{"colour": "red"}`), forced)
	require.NoError(t, err)
	require.False(t, got.Checked)
}

// An edit is in the event's own version: that is what it must be, and what the steps to today's make of it must be today's.
func TestEditOfAnOldEvent(t *testing.T) {
	t.Parallel()
	r, _ := named(t, splitName)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", func(context.Context, pgx.Tx, outbox.Received[name3]) error { return nil }, outbox.On("user.*"))
	outbox.Upcast(reg, "user.named", 2, func(n name2) (name3, error) { return name3{n.First, n.Last, n.First[:1] + n.Last[:1]}, nil })
	outbox.Upcast(reg, "user.named", 1, splitName)
	r.appendVersion(name1{"Ada"}, 1)
	for range 3 {
		r.settle()
	}
	id := one[int64](r, `select id from discarded_jobs where state = 'dead'`)
	op := r.op.WithConsumers(reg)
	var invalid *outbox.InvalidDataError
	for _, data := range []string{`{"Name": "Ada"}`, `{"Name": "Ada Lovelace", "Initials": "AL"}`, `{"First": "Ada", "Last": "Lovelace"}`} {
		_, err := op.ReplayEdited(t.Context(), id, json.RawMessage(data), anna)
		require.ErrorAs(t, err, &invalid, data)
	}
	got, err := op.ReplayEdited(t.Context(), id, json.RawMessage(`{"Name": "Ada Lovelace"}`), anna)
	require.NoError(t, err)
	require.True(t, got.Checked)
	r.settle()
	r.holds(`select state = 'replayed' from discarded_jobs`)
}
