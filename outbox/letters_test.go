package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// What differs from event to event does not make another cause, and what is of a person is not in a group's name.
func TestErrorsOfOneCauseHaveOneShape(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	for _, c := range []struct{ shape, error string }{
		{"# is broken", "17 is broken"},
		{"user <id> has no plan", "user 0190e2a4-7b1c-7def-8123-0123456789ab has no plan"},
		{"mailbox …@… is full (552 #.#.#)", "mailbox ada.lovelace+x@example.com is full (552 5.2.2)"},
		{"order # of # in v#", "order 4511 of 399 in v404"},
		{"ERROR: deadlock detected (SQLSTATE 40P01) after #s", "ERROR: deadlock detected (SQLSTATE 40P01) after 17s"},
		{"ERROR: too late (SQLSTATE 57014)", "ERROR: too late (SQLSTATE 57014)"},
		{`no product "…"`, `no product "hand grinder"`},
		{`no product "…" or "…"`, "no product 'a' or `b`"},
		{"at <hex>: #.#s", "at 0xc00012f3a8: 1.5s"},
		{"defaced facade", "defaced facade"},
		{"panic: index out of range [#]", "panic: index out of range [5]\ngoroutine 7 [running]:\nmain.f(0xc000)"},
		{"", ""},
	} {
		require.Equal(t, c.shape, one[string](r, `select outbox_error_shape($1)`, c.error), c.error)
	}
	require.LessOrEqual(t, one[int](r, `select length(outbox_error_shape(repeat('é ', 100000)))`), 500)
}

// Letters are counted by what they died of, the most first, also page by page; a filter narrows groups as it narrows letters.
func TestLetterGroups(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "ledger", func(_ context.Context, _ pgx.Tx, e outbox.Received[note]) error {
		switch {
		case e.Data.N%10 < 5:
			return outbox.Permanent(fmt.Errorf("order %s has no line %d", uuid.New(), e.Data.N))
		case e.Data.N%10 < 8:
			return outbox.Permanent(fmt.Errorf("%d is odd", e.Data.N))
		}
		return outbox.Permanent(errors.New("no plan for ada@example.com"))
	}, outbox.On("note.*"))
	r := newRig(t, reg)
	for n := range 20 {
		r.append(fmt.Sprint(n), n)
	}
	r.settle()

	var all []outbox.LetterGroup
	for after := (*outbox.LetterGroup)(nil); ; after = &all[len(all)-1] {
		page, err := r.op.LetterGroups(t.Context(), outbox.LetterFilter{State: "dead"}, after, 1)
		require.NoError(t, err)
		if len(page) == 0 {
			break
		}
		require.Len(t, page, 1)
		require.Less(t, len(all), 3, "each group is on one page")
		all = append(all, page[0])
	}
	var got []string
	for _, g := range all {
		got = append(got, fmt.Sprint(g.Letters, " ", g.Error))
		require.Equal(t, "ledger", g.Consumer)
		require.Equal(t, []string{"note.taken"}, g.Types)
		require.False(t, g.Newest.Before(g.Oldest))
		letters, err := r.op.Letters(t.Context(), outbox.LetterFilter{Fingerprint: g.Fingerprint}, 0, 100)
		require.NoError(t, err)
		require.Len(t, letters, int(g.Letters))
		require.Equal(t, g.NewestID, letters[0].ID)
	}
	require.Equal(t, []string{"10 order <id> has no line #", "6 # is odd", "4 no plan for …@…"}, got)

	r.dismiss(all[1].NewestID)
	narrow, err := r.op.LetterGroups(t.Context(), outbox.LetterFilter{State: "dead", Error: "IS ODD"}, nil, 10)
	require.NoError(t, err)
	require.Len(t, narrow, 1)
	require.EqualValues(t, 5, narrow[0].Letters)

	audit, err := r.op.Audit(t.Context(), outbox.AuditFilter{Actor: "anna"}, 0, 10)
	require.NoError(t, err)
	require.Len(t, audit, 1)
	require.Equal(t, [3]string{"dismiss", fmt.Sprintf("dead letter %d", all[1].NewestID), "a test"}, [3]string{audit[0].Action, audit[0].Target, audit[0].Reason})
	audit, err = r.op.Audit(t.Context(), outbox.AuditFilter{Action: "replay"}, 0, 10)
	require.NoError(t, err)
	require.Empty(t, audit)
}
