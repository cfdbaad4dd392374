package outbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// runs returns an engine's registry of consumers that have the effects and take whatever they are subscribed to.
func runs(names ...string) *outbox.Registry {
	reg := outbox.NewRegistry()
	for _, name := range names {
		outbox.Handle(reg, name, effect, outbox.On("*"))
	}
	return reg
}

func made(name string, patterns ...string) outbox.NewConsumer {
	return outbox.NewConsumer{Name: name, Kind: outbox.KindTx, Patterns: patterns, Ordered: true}
}

func (r *rig) appendOf(eventType, key string, n int) {
	r.t.Helper()
	require.NoError(r.t, pgx.BeginFunc(r.t.Context(), r.pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(r.t.Context(), tx, outbox.Event{Type: eventType, Key: key, Data: note{n}})
		return err
	}))
}

func TestOperatorMakesConsumers(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	r.append("a", 1)
	r.relay()
	table := func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `create table theirs as select name from consumers where name = 'late'`)
		return err
	}
	require.NoError(t, r.op.Create(t.Context(), made("late", "note.*", "note.*", "else"), anna, table))
	all := made("all", "note.*")
	all.Start = outbox.Beginning
	require.NoError(t, r.op.Create(t.Context(), all, anna))
	r.holds(`select count(*) = 1 from theirs`)
	r.holds(`select array_agg(pattern order by pattern) = '{else,note.*}' from consumer_subscriptions where consumer = 'late'`)
	r.holds(`select kind = 'tx' and ordered and on_dead = 'hold' from consumers where name = 'late'`)
	r.holds(`select count(*) = 1 from audit where action = 'create' and target = 'consumer late' and actor = 'anna'
		and detail->'patterns' = '["else", "note.*"]'`)

	// Until an engine is told of them it leaves them alone.
	r.append("a", 2)
	r.relay()
	_, err := r.Drain(t.Context(), outbox.Lane{Consumer: "late", Lane: r.lane("a")}, 0, time.Second)
	require.True(t, outbox.IsUncovered(err))
	require.Empty(t, r.SetConsumers(runs("late", "all", "not-made")))
	uncovered, err := r.Uncovered(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"not-made"}, uncovered)
	r.settle()
	r.applied("late", "a", 2)
	r.applied("all", "a", 1, 2)
	r.agrees()

	// What is registered is the code's.
	uncovered, err = r.Register(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"not-made"}, uncovered)
	r.holds(`select not exists (select from consumers where name = 'not-made')`)
}

func TestConsumersThatCannotBeMade(t *testing.T) {
	t.Parallel()
	r := newRig(t, runs("code"))
	for name, c := range map[string]struct {
		is   outbox.NewConsumer
		want []string
	}{
		"name":          {made("A b", "note.*"), []string{"/name"}},
		"long":          {made("a123456789b123456789c123456789d123456789e123456789f12345678", "note.*"), []string{"/name"}},
		"relay's queue": {made("relay", "note.*"), []string{"/name"}},
		"nothing":       {made("a"), []string{"/patterns"}},
		"patterns":      {made("a", "ok", "*.no", "", "also.*"), []string{"/patterns/1", "/patterns/2"}},
		"all": {
			outbox.NewConsumer{Kind: "else", OnDead: "else", Patterns: []string{"a b"}},
			[]string{"/name", "/kind", "/on_dead", "/patterns/0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var invalid *outbox.InvalidConsumerError
			require.ErrorAs(t, r.op.Create(t.Context(), c.is, anna), &invalid)
			var fields []string
			for _, f := range invalid.Fields {
				fields = append(fields, f.Pointer)
			}
			require.Equal(t, c.want, fields)
		})
	}
	var conflict *outbox.ConflictError
	require.ErrorAs(t, r.op.Create(t.Context(), made("code", "note.*"), anna), &conflict)
	var invalid *outbox.InvalidConsumerError
	require.ErrorAs(t, r.op.Subscribe(t.Context(), "code", nil, anna), &invalid)
	require.ErrorIs(t, r.op.Subscribe(t.Context(), "nobody", []string{"*"}, anna), outbox.ErrNotFound)

	// What is to be done with it fails: nothing was.
	broken := errors.New("broken")
	fails := func(context.Context, pgx.Tx) error { return broken }
	require.ErrorIs(t, r.op.Create(t.Context(), made("half", "note.*"), anna, fails), broken)
	require.ErrorIs(t, r.op.Subscribe(t.Context(), "code", []string{"note.*"}, anna, fails), broken)
	require.ErrorIs(t, r.op.Pause(t.Context(), "code", anna, fails), broken)
	_, err := r.op.Remove(t.Context(), "code", anna, fails)
	require.ErrorIs(t, err, broken)
	r.holds(`select count(*) = 1 from consumers`)
	r.holds(`select array_agg(pattern) = '{*}' from consumer_subscriptions`)
	r.holds(`select count(*) = 0 from consumers where paused_at is not null`)
	r.holds(`select count(*) = 0 from audit`)
}

// A name that was given up may be used at once, by another consumer that shares nothing with the old one.
func TestNameOfARemovedConsumerIsUsedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	c := made("c", "note.*")
	c.Start = outbox.Beginning
	require.NoError(t, r.op.Create(t.Context(), c, anna))
	r.SetConsumers(runs("c"))
	r.append("a", 1, 2)
	r.settle()
	r.applied("c", "a", 1, 2)
	_, err := r.op.Remove(t.Context(), "c", anna)
	require.NoError(t, err)
	uncovered, err := r.Uncovered(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"c"}, uncovered)

	require.NoError(t, r.op.Create(t.Context(), c, anna))
	uncovered, err = r.Uncovered(t.Context())
	require.NoError(t, err)
	require.Empty(t, uncovered)
	r.settle()
	r.applied("c", "a", 1, 2, 1, 2)
	r.agrees()
}

// The code's own consumer of a name stays.
func TestConsumersOfTheCodeAreNotReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t, runs("code"))
	also := outbox.NewRegistry()
	outbox.Handle(also, "code", func(context.Context, pgx.Tx, outbox.Received[note]) error { return errors.New("not this") }, outbox.On("*"))
	outbox.Handle(also, "more", effect, outbox.On("*"))
	require.Equal(t, []string{"code"}, r.SetConsumers(also))
	r.append("a", 1)
	r.settle()
	r.applied("code", "a", 1)
	require.Empty(t, r.SetConsumers(outbox.NewRegistry()))
	require.Len(t, r.Consumers(), 1)
}

func TestSubscriptionsAreReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	require.NoError(t, r.op.Create(t.Context(), made("c", "note.*", "cart.*"), anna))
	r.SetConsumers(runs("c"))
	patterns := func() []string {
		return one[[]string](r, `select array_agg(pattern order by pattern) from consumer_subscriptions where consumer = 'c'`)
	}
	r.appendOf("note.taken", "a", 1)
	r.appendOf("note.lost", "a", 2)
	r.appendOf("cart.created", "a", 3)
	r.relay()

	// Fewer: what is ahead of it and still wanted comes, the rest does not. What is new comes from now on.
	table := func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `create table theirs ()`)
		return err
	}
	require.NoError(t, r.op.Subscribe(t.Context(), "c", []string{"order.paid", "note.taken"}, anna, table))
	require.Equal(t, []string{"note.taken", "order.paid"}, patterns())
	r.holds(`select to_regclass('theirs') is not null`)
	r.holds(`select count(*) = 1 from audit where action = 'subscribe' and detail = '{"patterns": ["note.taken", "order.paid"], "ended": ["cart.*", "note.*"]}'`)
	r.appendOf("order.paid", "a", 4)
	r.settle()
	r.applied("c", "a", 1, 4)

	// More, while something is ahead of it: that comes, and nothing else of before.
	r.appendOf("note.lost", "a", 5)
	r.appendOf("note.taken", "a", 6)
	r.relay()
	require.NoError(t, r.op.Subscribe(t.Context(), "c", []string{"note.*"}, anna))
	require.Equal(t, []string{"note.*", "note.taken"}, patterns())
	r.appendOf("note.lost", "a", 7)
	r.settle()
	r.applied("c", "a", 1, 4, 6, 7)
	require.NoError(t, r.op.Subscribe(t.Context(), "c", []string{"note.*"}, anna))
	require.Equal(t, []string{"note.*"}, patterns())
	r.agrees()
}

// What is held cannot be done without: its types stay subscribed.
func TestSubscriptionsOfWhatIsHeldStay(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	r := newRigOn(t, pool, outbox.NewRegistry(), outbox.Config{})
	require.NoError(t, r.op.Create(t.Context(), made("c", "note.taken", "note.lost"), anna))
	also := outbox.NewRegistry()
	outbox.Handle(also, "c", func(context.Context, pgx.Tx, outbox.Received[note]) error { return errors.New("it is broken") }, outbox.On("*"))
	r.SetConsumers(also)
	r.append("a", 1)
	r.relay()
	r.drainAll()
	var conflict *outbox.ConflictError
	require.ErrorAs(t, r.op.Subscribe(t.Context(), "c", []string{"note.lost"}, anna), &conflict)
	require.NoError(t, r.op.Subscribe(t.Context(), "c", []string{"note.*"}, anna))
	r.holds(`select array_agg(pattern) = '{note.*}' from consumer_subscriptions`)
	r.agrees()
}

// A hold that lost its job gets another from a process that knows how many attempts it has left; where there is none, from any, later.
func TestHoldsOfOthersConsumersWait(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	r := newRigOn(t, pool, outbox.NewRegistry(), outbox.Config{MaxAttempts: 2})
	require.NoError(t, r.op.Create(t.Context(), made("c", "note.*"), anna))
	knows := newRigOn(t, pool, outbox.NewRegistry(), outbox.Config{MaxAttempts: 2})
	also := outbox.NewRegistry()
	outbox.Handle(also, "c", func(context.Context, pgx.Tx, outbox.Received[note]) error { return errors.New("it is broken") },
		outbox.On("*"), outbox.MaxAttempts(10))
	knows.SetConsumers(also)
	lost := func(ago string) {
		r.exec(`delete from river_job`)
		r.exec(`update holds set changed_at = clock_timestamp() - $1::interval, dead_at = null`, ago)
		r.exec(`delete from discarded_jobs`)
	}
	r.append("a", 1)
	r.relay()
	knows.drainAll()

	lost("10 seconds")
	require.NoError(t, r.Maintain(t.Context()))
	r.holds(`select not exists (select from river_job where kind = 'outbox_deliver')`)
	require.NoError(t, knows.Maintain(t.Context()))
	r.holds(`select max_attempts = 9 from river_job where kind = 'outbox_deliver'`)
	lost("2 minutes")
	require.NoError(t, r.Maintain(t.Context()))
	r.holds(`select count(*) = 1 from river_job where kind = 'outbox_deliver'`)
}
