package outbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// fuzzKinds are the consumers of a fuzzed rig, one of each kind. All but the first want data that most inputs are not.
var fuzzKinds = []string{"any", "one", "set", "outside"}

// newFuzzRig is a rig for a fuzz target: one database for all its inputs, each of which begins with nothing in it. What does not decode
// is dead at once.
func newFuzzRig(f testing.TB) (again func(t *testing.T) *rig) {
	f.Helper()
	reg := outbox.NewRegistry()
	once := []outbox.Option{outbox.On("*"), outbox.MaxAttempts(1)}
	outbox.Handle(reg, "any", func(ctx context.Context, tx pgx.Tx, e outbox.Received[any]) error {
		_, err := tx.Exec(ctx, `insert into effects (consumer, key, event_id) values ($1, $2, $3)`, e.Consumer, e.Key, e.ID)
		return err
	}, once...)
	outbox.Handle(reg, "one", effect, once...)
	outbox.HandleBatch(reg, "set", func(ctx context.Context, tx pgx.Tx, es []outbox.Received[note]) error {
		for _, e := range es {
			if err := effect(ctx, tx, e); err != nil {
				return err
			}
		}
		return nil
	}, once...)
	outbox.HandleExternal(reg, "outside", func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return recorded(e), nil
	}, once...)
	return newRig(f, reg).save()
}

// neighbour is another key of the same lane. For what is no key, it is any.
func (r *rig) neighbour(key string) string {
	r.t.Helper()
	found := "neighbour"
	_ = r.pool.QueryRow(r.t.Context(), `select 'neighbour ' || i from generate_series(1, 5000) as i
		where hashtextextended('neighbour ' || i, 0) & 63 = hashtextextended($1, 0) & 63 and 'neighbour ' || i <> $1 limit 1`, key).Scan(&found)
	return found
}

// land has produce write an event between two of a neighbour, in one transaction, and carries them to their end: the neighbour's
// have their effects, and the event has been processed by each consumer or is a dead letter there. refused is what produce
// returned; then there is no event, and the neighbour's arrive all the same.
func (r *rig) land(key string, produce func(tx pgx.Tx) (uuid.UUID, error)) (id uuid.UUID, refused error) {
	r.t.Helper()
	neighbour := r.neighbour(key)
	r.inTx(func(tx pgx.Tx) error {
		if err := appendNote(r.t.Context(), tx, neighbour, 1); err != nil {
			return err
		}
		id, refused = produce(tx)
		return appendNote(r.t.Context(), tx, neighbour, 2)
	})
	r.carry()
	for _, c := range fuzzKinds {
		require.Equal(r.t, 2, one[int](r, `select count(*) from effects where consumer = $1 and key = $2`, c, neighbour), c)
	}
	if refused != nil {
		require.Equal(r.t, 2, one[int](r, `select (select count(*) from events) + (select count(*) from scheduled)`))
		return id, refused
	}
	r.shows(id)
	return id, nil
}

// carry works until all is quiet, with a relay that runs all the time.
func (r *rig) carry() {
	r.t.Helper()
	stop := r.startRelay()
	defer func() { require.NoError(r.t, stop()) }()
	for {
		r.until(`select not exists (select from outbox) and not exists (select from scheduled where not_before <= clock_timestamp())`)
		r.drainAll()
		if r.deliverAll() == 0 && one[bool](r, `select not exists (select from outbox) and not exists (select from holds where settled_at is not null)`) {
			break
		}
	}
	r.holds(`select not exists (select from quarantine)`)
	r.agrees()
}

// shows requires operators to see the event, and all that became of it, in answers that can be sent.
func (r *rig) shows(id uuid.UUID) {
	r.t.Helper()
	e, err := r.op.Event(r.t.Context(), id)
	require.NoError(r.t, err)
	trace, err := r.op.Trace(r.t.Context(), e.CorrelationID)
	require.NoError(r.t, err)
	require.NotEmpty(r.t, trace.Events)
	all, err := r.op.Consumers(r.t.Context())
	require.NoError(r.t, err)
	letters, err := r.op.Letters(r.t.Context(), outbox.LetterFilter{Key: e.Key, Type: e.Type}, 0, 10)
	require.NoError(r.t, err)
	answers := []any{e, trace, all, letters}
	for _, l := range letters {
		whole, err := r.op.Letter(r.t.Context(), l.ID)
		require.NoError(r.t, err)
		answers = append(answers, whole)
	}
	for _, a := range answers {
		_, err := json.Marshal(a)
		require.NoError(r.t, err, "%T", a)
	}
	if e.State == "scheduled" {
		return
	}
	require.Equal(r.t, "relayed", e.State)
	require.Len(r.t, e.Deliveries, len(fuzzKinds))
	for _, d := range e.Deliveries {
		require.Contains(r.t, []string{"processed", "dead"}, d.State, d.Consumer)
	}
	require.Empty(r.t, trace.Events[len(trace.Events)-1].Data, "a trace has no data")
}

// follows gives up the dead letters of a key and requires what comes later of it to arrive.
func (r *rig) follows(key string) {
	r.t.Helper()
	r.inTx(func(tx pgx.Tx) error { return appendNote(r.t.Context(), tx, key, 3) })
	r.carry()
	for _, id := range one[[]int64](r, `select coalesce(array_agg(id), '{}') from discarded_jobs where state = 'dead'`) {
		r.dismiss(id)
	}
	r.carry()
	for _, c := range fuzzKinds {
		r.holds(`select count(*) = 1 from effects f join events e on e.id = f.event_id
			where f.consumer = $1 and e.key = $2 and e.type = 'note.taken' and e.source = 'follower'`, c, key)
	}
	r.holds(`select not exists (select from holds) and not exists (select from waiting)`)
}

func appendNote(ctx context.Context, tx pgx.Tx, key string, n int) error {
	source := ""
	if n == 3 {
		source = "follower"
	}
	_, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.taken", Key: key, Data: note{n}, Source: source})
	return err
}

func (r *rig) inTx(fn func(tx pgx.Tx) error) {
	r.t.Helper()
	require.NoError(r.t, pgx.BeginFunc(r.t.Context(), r.pool, fn))
}

// moment is the time so many microseconds from the year 2000, as PostgreSQL counts: the greatest number is infinity, the
// least minus infinity; 0 is none.
func moment(micro int64) (pgtype.Timestamptz, bool) {
	t := pgtype.Timestamptz{Valid: micro != 0, Time: time.UnixMicro(946_684_800_000_000 + micro)}
	switch micro {
	case 1<<63 - 1:
		t.InfinityModifier = pgtype.Infinity
	case -1 << 63:
		t.InfinityModifier = pgtype.NegativeInfinity
	default:
		// Beyond, the sum has wrapped around.
		return t, micro < 1<<63-1-946_684_800_000_000
	}
	return t, true
}

// nested is JSON of so many lists in one another.
func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

// sized is a JSON string of so many bytes.
func sized(bytes int) string { return fmt.Sprintf("%q", strings.Repeat("x", bytes-2)) }
