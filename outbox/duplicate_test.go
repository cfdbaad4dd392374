package outbox_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// TestSameEventTwice: a producer that writes an event's id twice gets one effect from each consumer, and no lane stops.
func TestSameEventTwice(t *testing.T) {
	t.Parallel()
	for name, together := range map[string]bool{"in one batch": true, "in two batches": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := outbox.NewRegistry()
			outbox.Handle(reg, "tx", effect, outbox.On("note.*"))
			outbox.Handle(reg, "fails", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
				if err := brokenNow(ctx, tx, e); err != nil {
					return err
				}
				return effect(ctx, tx, e)
			}, outbox.On("note.*"))
			outbox.HandleExternal(reg, "external", func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
				return recorded(e), nil
			}, outbox.On("note.*"))
			r := newRig(t, reg)
			r.exec(`create table broken (n int)`)
			r.exec(`insert into broken values (1)`)
			id := uuid.Must(uuid.NewV7())
			write := func() {
				r.exec(`insert into outbox (id, type, key, data, correlation_id) values ($1, 'note.taken', 'k', '{"n": 1}', 'c')`, id)
			}
			write()
			if together {
				write()
				write()
			}
			r.relay()
			r.drainAll()
			if !together {
				write()
				r.relay()
				r.drainAll()
			}
			r.append("k", 2)
			r.relay()
			r.drainAll()
			r.agrees()
			r.exec(`delete from broken`)
			r.settle()
			write()
			r.settle()
			for _, c := range []string{"tx", "fails", "external"} {
				r.applied(c, "k", 1, 2)
			}
			r.holds(`select not exists (select from holds) and not exists (select from waiting)`)
			r.agrees()
		})
	}
}

// TestDuplicateOfAWaitingEvent: the first of the two may not have run yet when the second comes.
func TestDuplicateOfAWaitingEvent(t *testing.T) {
	t.Parallel()
	r := failing(t, "c", outbox.MaxAttempts(1))
	r.exec(`insert into broken values (0)`)
	id := uuid.Must(uuid.NewV7())
	r.append("k", 0)
	for range 2 {
		r.exec(`insert into outbox (id, type, key, data, correlation_id) values ($1, 'note.taken', 'k', '{"n": 1}', 'c')`, id)
		r.settle()
		r.agrees()
	}
	r.append("k", 2)
	r.exec(`delete from broken`)
	_, err := r.op.Replay(t.Context(), r.letter(0).ID, nil, anna)
	require.NoError(t, err)
	r.settle()
	r.applied("c", "k", 0, 1, 2)
	r.agrees()
}
