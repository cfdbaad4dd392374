package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// on returns a rig whose one consumer has the effects.
func on(t *testing.T, pool *pgxpool.Pool, name string, opts ...outbox.Option) *rig {
	t.Helper()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, name, effect, append(opts, outbox.On("note.*"))...)
	return newRigOn(t, pool, reg, outbox.Config{})
}

func TestNewConsumerStartsWhereItSays(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	r := newRigOn(t, pool, outbox.NewRegistry(), outbox.Config{})
	for n := range 6 {
		r.append("a", n)
		r.relay()
	}
	r.exec(`update events set relayed_at = now() - interval '1 hour' + pos * interval '5 minutes'`)
	at := one[time.Time](r, `select relayed_at from events where (data->>'n')::int = 3`)
	for name, c := range map[string]struct {
		start outbox.Start
		want  []int32
	}{
		"now":            {outbox.Now, []int32{6}},
		"from-the-start": {outbox.Beginning, []int32{0, 1, 2, 3, 4, 5, 6}},
		"since":          {outbox.Since(at), []int32{3, 4, 5, 6}},
		"since-ever":     {outbox.Since(at.Add(-time.Hour)), []int32{0, 1, 2, 3, 4, 5, 6}},
		"since-later":    {outbox.Since(at.Add(time.Hour)), []int32{6}},
	} {
		on(t, pool, name, outbox.StartFrom(c.start))
	}
	r.append("a", 6)
	r.relay()
	for name, want := range map[string][]int32{
		"now": {6}, "from-the-start": {0, 1, 2, 3, 4, 5, 6}, "since": {3, 4, 5, 6}, "since-ever": {0, 1, 2, 3, 4, 5, 6}, "since-later": {6},
	} {
		c := on(t, pool, name, outbox.StartFrom(outbox.Beginning)) // for one that is known it says nothing
		c.drain(name, "a")
		c.applied(name, "a", want...)
	}
	r.agrees()
}

func TestConsumerIsRenamed(t *testing.T) {
	t.Parallel()
	r := failing(t, "old", outbox.MaxAttempts(2))
	pool := r.pool
	r.exec(`insert into broken values (2), (5), (5)`)
	r.append("a", 1, 2, 3)
	r.append("b", 4, 5, 6)
	r.relay()
	r.drainAll() // 2 is in flight, 5 is dead
	r.append("c", 7)
	r.relay()
	r.agrees()

	reg := outbox.NewRegistry()
	outbox.Handle(reg, "new", effect, outbox.On("note.*"), outbox.Formerly("old"))
	n := newRigOn(t, pool, reg, outbox.Config{})
	n.agrees()
	n.holds(`select not exists (select from consumers where name = 'old')`)
	// A process of the old build finds nothing to do, and does not begin anew either.
	_, err := r.Drain(t.Context(), outbox.Lane{Consumer: "old", Lane: r.lane("c")}, 0, time.Second)
	require.NoError(t, err)
	uncovered, err := r.Register(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"old"}, uncovered)
	n.holds(`select not exists (select from consumers where name = 'old')`)

	n.settle()
	n.applied("old", "a", 1)
	n.applied("new", "a", 2, 3)
	n.applied("new", "c", 7)
	letter := n.letter(5)
	require.Equal(t, "new", letter.Consumer)
	_, err = n.op.Replay(t.Context(), letter.ID, nil, anna)
	require.NoError(t, err)
	n.settle()
	n.applied("new", "b", 5, 6)
	n.agrees()

	// A rename happens once, and what it had processed it does not process again.
	_, err = n.Register(t.Context())
	require.NoError(t, err)
	n.backfill("new", outbox.Backfill{From: outbox.Beginning})
	n.settle()
	n.agrees()

	// And back, as when the deploy is taken back by code that says so.
	back := on(t, pool, "old", outbox.Formerly("new"))
	back.append("c", 8)
	back.settle()
	back.applied("old", "c", 8)
	back.agrees()
}

// A batch that is under way under the old name ends before it is gone: what it does counts.
func TestRenameAndRemovalWaitForBatches(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(r *rig) error{
		"rename": func(r *rig) error {
			reg := outbox.NewRegistry()
			outbox.Handle(reg, "new", effect, outbox.On("note.*"), outbox.Formerly("old"))
			_, err := outbox.NewEngine(r.pool, reg, r.jobs, outbox.Config{}).Register(r.t.Context())
			return err
		},
		"removal": func(r *rig) error {
			_, err := r.op.Remove(r.t.Context(), "old", anna)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun, goOn := make(chan struct{}), make(chan struct{})
			reg := outbox.NewRegistry()
			outbox.Handle(reg, "old", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
				close(begun)
				<-goOn
				return effect(ctx, tx, e)
			}, outbox.On("note.*"))
			r := newRig(t, reg)
			r.append("a", 1)
			r.relay()
			drained, ended := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := r.Drain(t.Context(), outbox.Lane{Consumer: "old", Lane: r.lane("a")}, 0, time.Minute)
				drained <- err
			}()
			<-begun
			go func() { ended <- end(r) }()
			r.blocked(1)
			close(goOn)
			require.NoError(t, <-drained)
			require.NoError(t, <-ended) // a removal that did not wait would find an event ahead, and be refused
			r.applied("old", "a", 1)
			r.holds(`select not exists (select from consumers where name = 'old')`)
			r.agrees()
		})
	}
}

func TestConsumerIsRemoved(t *testing.T) {
	t.Parallel()
	r := failing(t, "gone", outbox.MaxAttempts(2))
	r.exec(`insert into broken values (2), (5), (5)`)
	r.append("a", 1, 2, 3)
	r.append("b", 4, 5, 6)
	r.relay()
	r.drainAll()
	r.append("c", 7)
	r.relay()

	var conflict *outbox.ConflictError
	_, err := r.op.Remove(t.Context(), "nobody", anna)
	require.ErrorIs(t, err, outbox.ErrNotFound)
	_, err = r.op.Remove(t.Context(), "gone", anna)
	require.ErrorAs(t, err, &conflict)
	_, err = r.op.Remove(t.Context(), "gone", outbox.Action{Actor: "anna", Force: true})
	require.ErrorIs(t, err, outbox.ErrReasonRequired)
	removal, err := r.op.Remove(t.Context(), "gone", outbox.Action{Actor: "anna", Reason: "a test", Force: true})
	require.NoError(t, err)
	require.Equal(t, &outbox.Removal{Consumer: "gone", Lag: 1, InFlight: 1, Waiting: 2, Dead: 1, LettersOf: removal.LettersOf}, removal)
	r.holds(`select not exists (select from holds) and not exists (select from waiting) and not exists (select from cursors)`)
	r.holds(`select not exists (select from river_job where state in ('available', 'scheduled', 'retryable', 'running'))`)
	r.holds(`select count(*) = 1 from discarded_jobs where state = 'dismissed' and consumer = $1`, removal.LettersOf)
	var letter int64
	require.NoError(t, r.pool.QueryRow(t.Context(), `select id from discarded_jobs where state = 'dismissed'`).Scan(&letter))
	_, err = r.op.Replay(t.Context(), letter, nil, outbox.Action{Actor: "anna", Reason: "a test", Force: true})
	require.ErrorAs(t, err, &conflict, "nobody would take it")
	r.agrees()

	// Code that still has it leaves it alone; when it begins anew, it begins from scratch.
	uncovered, err := r.Register(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"gone"}, uncovered)
	r.exec(`update retired_consumers set at = at - interval '8 days'`)
	r.exec(`delete from broken`)
	again := on(t, r.pool, "gone", outbox.StartFrom(outbox.Beginning))
	again.exec(`delete from effects`)
	again.settle()
	again.applied("gone", "a", 1, 2, 3)
	again.applied("gone", "b", 4, 5, 6)
	again.applied("gone", "c", 7)
	again.agrees()
}

func TestUnsubscribe(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", effect, outbox.On("note.*", "memo.*"))
	r := newRigOn(t, pool, reg, outbox.Config{})
	less := on(t, pool, "c")
	uncovered, err := less.Uncovered(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"c"}, uncovered)

	r.append("a", 1)
	r.exec(`select outbox_append('memo.taken', 'a', '{"n": 2}')`)
	r.append("a", 3)
	r.relay()
	require.ErrorIs(t, r.op.Unsubscribe(t.Context(), "c", "letter.*", anna), outbox.ErrNotFound)
	require.NoError(t, r.op.Unsubscribe(t.Context(), "c", "memo.*", anna))
	var conflict *outbox.ConflictError
	require.ErrorAs(t, r.op.Unsubscribe(t.Context(), "c", "note.*", anna), &conflict)
	uncovered, err = less.Uncovered(t.Context())
	require.NoError(t, err)
	require.Empty(t, uncovered)
	less.settle()
	less.applied("c", "a", 1, 3)
	less.agrees()
}

// TestWithLeavesTheRegistryAlone: and its copy handles with the same code.
func TestWithLeavesTheRegistryAlone(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "counter", effect, outbox.On("note.taken"), outbox.MaxAttempts(7))
	with := reg.With(outbox.MaxAttempts(2), outbox.On("note.read"))
	require.Equal(t, 2, with.Consumer("counter").MaxAttempts)
	require.Equal(t, []string{"note.read", "note.taken"}, with.Consumer("counter").Patterns)
	require.Equal(t, 7, reg.Consumer("counter").MaxAttempts)
	require.Equal(t, []string{"note.taken"}, reg.Consumer("counter").Patterns)
	require.Panics(t, func() { reg.With(outbox.Timeout(-1)) })

	r := newRig(t, with)
	r.append("k", 1)
	r.settle()
	r.applied("counter", "k", 1)
}
