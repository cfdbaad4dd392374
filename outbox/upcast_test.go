package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type (
	name1 struct{ Name string }
	name2 struct{ First, Last string }
	name3 struct {
		First, Last string
		Initials    string
	}
)

func named(t *testing.T, split func(name1) (name2, error)) (*rig, *[]outbox.Received[name3]) {
	t.Helper()
	got := &[]outbox.Received[name3]{}
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", func(_ context.Context, _ pgx.Tx, e outbox.Received[name3]) error {
		*got = append(*got, e)
		return nil
	}, outbox.On("user.*"), outbox.MaxAttempts(2))
	outbox.Upcast(reg, "user.named", 2, func(n name2) (name3, error) {
		return name3{n.First, n.Last, n.First[:1] + n.Last[:1]}, nil
	})
	outbox.Upcast(reg, "user.named", 1, split)
	return newRig(t, reg), got
}

func splitName(n name1) (name2, error) {
	first, last, ok := strings.Cut(n.Name, " ")
	if !ok {
		return name2{}, errors.New("no last name")
	}
	return name2{first, last}, nil
}

func (r *rig) appendVersion(data any, version int) {
	r.t.Helper()
	require.NoError(r.t, outbox.InTx(r.t.Context(), r.pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(r.t.Context(), tx, outbox.Event{Type: "user.named", Key: "k", Data: data, SchemaVersion: version})
		return err
	}))
}

func TestOldEventsReachNewCode(t *testing.T) {
	t.Parallel()
	r, got := named(t, splitName)
	r.appendVersion(map[string]string{"Name": "Ada Lovelace"}, 1)
	r.appendVersion(name2{"Grace", "Hopper"}, 2)
	r.appendVersion(name3{"Alan", "Turing", "A. T."}, 3)
	r.appendVersion(map[string]string{"First": "Edsger", "Title": "Prof."}, 4) // by a newer build
	r.relay()
	r.drainAll()
	var data []name3
	var versions []int
	for _, e := range *got {
		data, versions = append(data, e.Data), append(versions, e.SchemaVersion)
	}
	require.Equal(t, []name3{{"Ada", "Lovelace", "AL"}, {"Grace", "Hopper", "GH"}, {"Alan", "Turing", "A. T."}, {First: "Edsger"}}, data)
	require.Equal(t, []int{3, 3, 3, 4}, versions)
	r.holds(`select data = '{"Name": "Ada Lovelace"}' and schema_version = 1 from events order by pos limit 1`)
	r.agrees()
}

// TestUpcastFails: it is a failed attempt like any other, and a repair in the event's own version mends it.
func TestUpcastFails(t *testing.T) {
	t.Parallel()
	for name, split := range map[string]func(name1) (name2, error){
		"error": splitName,
		"panic": func(n name1) (name2, error) {
			parts := strings.Split(n.Name, " ")
			return name2{parts[0], parts[1]}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, got := named(t, split)
			r.appendVersion(map[string]string{"Name": "Plato"}, 1)
			r.settle()
			r.holds(`select count(*) = 1 and bool_and(attempts = 2 and error <> '') from discarded_jobs where state = 'dead'`)
			letter := one[int64](r, `select id from discarded_jobs`)
			_, err := r.op.Replay(t.Context(), letter, json.RawMessage(`{"Name": "Plato Academus"}`), anna)
			require.NoError(t, err)
			r.settle()
			require.Len(t, *got, 1)
			require.Equal(t, name3{"Plato", "Academus", "PA"}, (*got)[0].Data)
			r.agrees()
		})
	}
}

func TestUpcastsThatCannotWork(t *testing.T) {
	t.Parallel()
	same := func(n name1) (name1, error) { return n, nil }
	reg := outbox.NewRegistry()
	outbox.Upcast(reg, "a.b", 1, same)
	require.PanicsWithValue(t, "outbox: upcast of a.b from version 1 is registered twice", func() { outbox.Upcast(reg, "a.b", 1, same) })
	require.Panics(t, func() { outbox.Upcast(reg, "a.b", 0, same) })
	require.Panics(t, func() { outbox.Upcast(reg, "a.*", 1, same) })
}
