package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// errSwallowed makes the consumer of handled return at once, and without an error.
var errSwallowed = errors.New("swallowed")

// handled returns a rig with one consumer, which fails where fn does and writes its effect else.
func handled(t *testing.T, fn func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error, opts ...outbox.Option) *rig {
	t.Helper()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if err := fn(ctx, tx, e); errors.Is(err, errSwallowed) {
			return nil
		} else if err != nil {
			return err
		}
		outbox.Batch(ctx).Queue(`insert into effects (consumer, key, event_id, n) values ($1, $2, $3, $4)`, e.Consumer, e.Key, e.ID, e.Data.N)
		return nil
	}, append(opts, outbox.On("note.*"), outbox.MaxAttempts(1))...)
	return newRig(t, reg)
}

func (r *rig) fill(key string, n int) {
	r.t.Helper()
	r.exec(`select outbox_append('note.taken', $1, jsonb_build_object('n', n)) from generate_series(0, $2 - 1) n`, key, n)
	r.relay()
}

// A consumer has a backlog once there was a large batch of it: then as many of its drains run as can.
func TestHasBacklog(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "effects", effect, outbox.On("note.*"))
	r := newRig(t, reg)
	r.fill("a", 100)
	r.drain("effects", "a")
	require.False(t, r.HasBacklog("effects"))
	r.fill("a", 300)
	r.drain("effects", "a")
	require.True(t, r.HasBacklog("effects"))
	require.False(t, r.HasBacklog("another"))
	r.agrees()
}

// A window that cannot be read is an error like any other, and no panic, which would take the process along: a server that shuts down while it
// works on that statement, for one.
func TestWindowThatCannotBeRead(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "effects", effect, outbox.On("note.*"))
	r := newRigOn(t, testdb.SmallPool(t, testdb.Pool(t), 1), reg, outbox.Config{})
	r.append("a", 1, 2)
	r.relay()
	r.drain("effects", "a") // the connection knows the statements now
	r.append("a", 3)
	r.relay()
	r.exec(`alter table events rename column data to hidden`)
	_, err := r.Drain(t.Context(), outbox.Lane{Consumer: "effects", Lane: r.lane("a")}, 0, time.Minute)
	var refused *pgconn.PgError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "42703", refused.Code)
	r.exec(`alter table events rename column hidden to data`)
	r.drain("effects", "a")
	r.holds(`select array_agg(n order by i) = '{1,2,3}' from effects`)
	r.agrees()
}

// Drains give way where there is more behind a full batch while somebody writes. A pile of old events that is moved at this moment is nobody's
// writing.
func TestGivesWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		events   int
		newest   string // occurred
		givesWay bool
	}{
		"a backlog, and somebody writes": {1100, "tomorrow", true},
		"a backlog of old events":        {1100, "yesterday", false},
		"one batch and nothing behind":   {250, "tomorrow", false}, // large, and soon done: what takes too long ends before it is whole
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := outbox.NewRegistry()
			outbox.Handle(reg, "effects", effect, outbox.On("note.*"))
			r := newRig(t, reg)
			r.fill("a", c.events)
			r.exec(`update events set occurred_at = $1::text::timestamptz`, c.newest)
			_, err := r.Drain(t.Context(), outbox.Lane{Consumer: "effects", Lane: r.lane("a")}, 0, 0)
			require.NoError(t, err)
			require.True(t, r.HasBacklog("effects"))
			require.Equal(t, c.givesWay, r.GivesWay("effects"))
			require.False(t, r.GivesWay("another"))
		})
	}
}

// What waited behind a hold gives way to nobody.
func TestReleasedDoesNotGiveWay(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	broken := true
	outbox.Handle(reg, "effects", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if broken {
			return errors.New("broken")
		}
		return effect(ctx, tx, e)
	}, outbox.On("note.*"))
	r := newRig(t, reg)
	r.fill("a", 1200)
	r.drain("effects", "a")
	r.holds(`select count(*) = 1199 from waiting`)
	broken = false
	require.Equal(t, 1, r.deliverAll())
	r.exec(`update events set occurred_at = 'tomorrow'`)
	later := outbox.NewEngine(r.pool, reg, r.jobs, outbox.Config{}) // which has not seen the batch before
	more, err := later.Drain(t.Context(), outbox.Lane{Consumer: "effects", Lane: r.lane("a")}, 0, 0)
	require.NoError(t, err)
	require.True(t, more)
	require.True(t, later.HasBacklog("effects"))
	require.False(t, later.GivesWay("effects"))
}

// A drain's commit waits for the disk where a handler did something, and only there: nobody is told of what the others write.
func TestDrainsThatDidNothingCommitLater(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if e.Data.N == 0 {
			return outbox.Permanent(errors.New("never"))
		}
		return effect(ctx, tx, e)
	}, outbox.On("note.*"))
	r := newRigOn(t, testdb.PoolOn(t, testdb.New(t)+"&synchronous_commit=on"), reg, outbox.Config{})
	r.exec(`create table said (i bigint generated always as identity, how text)`)
	r.exec(`create function say() returns trigger language plpgsql as
		$$ begin insert into said (how) values (current_setting('synchronous_commit')); return null; end $$`)
	for _, table := range []string{"cursors", "river_job"} { // at the commit
		r.exec(`create constraint trigger say after update or delete on ` + table + ` deferrable initially deferred for each row execute function say()`)
	}
	lane := outbox.Lane{Consumer: "c", Lane: r.lane("k")}
	said := func() (how string) {
		t.Helper()
		_, err := r.Drain(t.Context(), lane, 0, time.Minute)
		require.NoError(t, err)
		return one[string](r, `select how from said order by i desc limit 1`)
	}
	r.appendEvent(outbox.Event{Type: "other.happened", Key: "k", Data: note{1}})
	r.relay()
	require.Equal(t, "off", said(), "the cursor passed what is not wanted")
	r.append("k", 1)
	r.relay()
	require.Equal(t, "on", said(), "there is an effect")
	r.append("k", 0)
	r.relay()
	require.Equal(t, "off", said(), "the event is dead")

	// One that finds the lane taken deletes its job.
	job := one[int64](r, `select max(id) from river_job where kind = 'outbox_drain'`)
	r.exec(`update river_job set state = 'running', attempted_at = now() where id = $1`, job)
	r.exec(`delete from said`)
	other, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = other.Exec(t.Context(), `select pg_advisory_xact_lock((tableoid::bigint - 2147483648)::integer, id * 64 + $1) from consumers`, lane.Lane)
	require.NoError(t, err)
	_, err = r.Drain(t.Context(), lane, job, time.Minute)
	require.NoError(t, err)
	require.NoError(t, other.Rollback(t.Context()))
	r.holds(`select array_agg(how) = '{off}' from said`)
	r.agrees()
}

func TestPoisonedChunks(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"error": func(context.Context, pgx.Tx) error { return errors.New("poison") },
		"panic": func(context.Context, pgx.Tx) error { panic("poison\x00") },
		"sql": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `select 1/0`)
			return err
		},
		"swallowed": func(ctx context.Context, tx pgx.Tx) error {
			_, _ = tx.Exec(ctx, `select 1/0`)
			return errSwallowed
		},
		"queued": func(ctx context.Context, _ pgx.Tx) error {
			outbox.Batch(ctx).Queue(`select 1/0`)
			return nil
		},
		"savepoint left open": func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Begin(ctx); err != nil {
				return err
			}
			return errors.New("poison")
		},
		"commit": func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			r := handled(t, func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
				calls++
				if e.Data.N%100 == 7 { // five of 500, one of a chunk
					return poison(ctx, tx)
				}
				return nil
			}, outbox.Unordered())
			r.fill("k", 500)
			r.drain("c", "k")
			r.holds(`select count(*) = 495 and count(distinct event_id) = 495 from effects`)
			r.holds(`select bool_and(n % 100 <> 7) and not exists (select from (select n - lag(n) over (order by i) as step from effects) s where step <= 0) from effects`)
			r.holds(`select count(*) = 5 from discarded_jobs where state = 'dead' and (data->>'n')::int % 100 = 7`)
			// What travelled with the first of them and what was ready to, and then little more than their chunks.
			require.LessOrEqual(t, calls, 500+2*96+5*4*16)
			r.agrees()
		})
	}
}

// TestFailureAtCommit: a deferred constraint names no event; the batch is halved until one is alone.
func TestFailureAtCommit(t *testing.T) {
	t.Parallel()
	r := handled(t, func(_ context.Context, _ pgx.Tx, _ outbox.Received[note]) error { return nil }, outbox.Unordered())
	r.exec(`create table allowed (n int primary key)`)
	r.exec(`insert into allowed select n from generate_series(0, 99) n where n not in (41, 42, 77)`)
	r.exec(`alter table effects add foreign key (n) references allowed deferrable initially deferred`)
	r.fill("k", 100)
	r.drain("c", "k")
	r.holds(`select count(*) = 97 from effects`)
	r.holds(`select count(*) = 3 and bool_and(reason = 'suspect') from holds`)
	r.deliverAll()
	r.holds(`select count(*) = 3 and bool_and(error like '%foreign key%') from discarded_jobs`)
	r.agrees()
}

// TestLanesThatDeadlock: what two lanes do to each other is held against no event.
func TestLanesThatDeadlock(t *testing.T) {
	t.Parallel()
	var arrived sync.WaitGroup
	arrived.Add(2)
	var once [2]sync.Once
	r := handled(t, func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		first, second := e.Data.N, 1-e.Data.N
		if _, err := tx.Exec(ctx, `update shared set n = n + 1 where id = $1`, first); err != nil {
			return err
		}
		once[first].Do(func() { arrived.Done(); arrived.Wait() })
		_, err := tx.Exec(ctx, `update shared set n = n + 1 where id = $1`, second)
		return err
	})
	r.exec(`create table shared as select id, 0 as n from generate_series(0, 1) id`)
	r.append("a", 0)
	r.append("b", 1)
	require.NotEqual(t, r.lane("a"), r.lane("b"))
	r.relay()
	var drains sync.WaitGroup
	for _, key := range []string{"a", "b"} {
		drains.Go(func() { r.drain("c", key) })
	}
	drains.Wait()
	r.holds(`select bool_and(n = 2) from shared`)
	r.holds(`select not exists (select from holds) and not exists (select from delivery_log)`)
	r.agrees()
}

// TestWhatTheDatabaseDidIsHeldAgainstNoEvent, also where it does it to an event twice.
func TestWhatTheDatabaseDidIsHeldAgainstNoEvent(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"40P01", "40001", "55P03", "57014"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			runs := 0
			r := handled(t, func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
				if runs++; e.Data.N != 3 || runs > 12 {
					return nil
				}
				_, err := tx.Exec(ctx, `do $$ begin raise exception 'again' using errcode = '`+state+`'; end $$`)
				return err
			})
			r.fill("k", 6)
			r.drain("c", "k")
			r.holds(`select array_agg(n order by i) = '{0,1,2,3,4,5}' from effects`)
			r.holds(`select not exists (select from holds) and not exists (select from delivery_log)`)
		})
	}
}

// TestLoneEventThatRollsBackAgainAndAgain leaves the lane in the end, and its neighbours do not.
func TestLoneEventThatRollsBackAgainAndAgain(t *testing.T) {
	t.Parallel()
	runs := 0
	r := handled(t, func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if e.Data.N != 30 {
			return nil
		}
		runs++
		_, err := tx.Exec(ctx, `do $$ begin raise exception 'again' using errcode = 'deadlock_detected'; end $$`)
		return err
	}, outbox.Unordered())
	r.fill("k", 60)
	r.drain("c", "k")
	r.holds(`select count(*) = 59 from effects`)
	r.holds(`select count(*) = 1 and bool_and(reason = 'suspect') from holds`)
	require.LessOrEqual(t, runs, 8)
	r.agrees()
}

func TestBatchIsCutAtAppendedKeys(t *testing.T) {
	t.Parallel()
	r := handled(t, func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		for i := range 8 {
			if _, err := outbox.Append(ctx, tx, outbox.Event{Type: "part.made", Key: fmt.Sprint(e.Data.N, "-", i), Data: 1}); err != nil {
				return err
			}
		}
		return nil
	})
	r.exec(`create table locks (n int)`)
	r.exec(`create function note_locks() returns trigger language plpgsql as $$ begin
		insert into locks select count(*) from pg_locks where locktype = 'advisory' and objsubid = 1 and pid = pg_backend_pid(); return null; end $$`)
	r.exec(`create trigger note_locks after insert on outbox execute function note_locks()`)
	r.fill("k", 100)
	r.exec(`delete from locks`)
	r.drain("c", "k")
	require.LessOrEqual(t, one[int](r, `select max(n) from locks`), 64+15*8)
	r.holds(`select count(*) = 100 from effects`)
}

// TestBatchIsCutAfterTwoSeconds: slow handlers hold the lane's locks for two seconds and not for the whole window.
func TestBatchIsCutAfterTwoSeconds(t *testing.T) {
	t.Parallel()
	r := handled(t, func(ctx context.Context, tx pgx.Tx, _ outbox.Received[note]) error {
		_, err := tx.Exec(ctx, `select pg_sleep(0.35)`) // the work is slow; nothing waits for it
		return err
	})
	r.fill("k", 14)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = r.Drain(t.Context(), outbox.Lane{Consumer: "c", Lane: r.lane("k")}, 0, time.Millisecond)
	}()
	<-drained
	n := one[int](r, `select count(*) from effects`)
	require.Positive(t, n)
	require.Less(t, n, 9)
	r.agrees()
}

// TestQueuedStatementsSurviveOneSentBetween: a handler may keep its batch while it sends statements itself.
func TestQueuedStatementsSurviveOneSentBetween(t *testing.T) {
	t.Parallel()
	r := handled(t, func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		batch := outbox.Batch(ctx)
		batch.Queue(`insert into effects (consumer, key, n) values ('first', 'k', $1)`, e.Data.N)
		if _, err := tx.Exec(ctx, `insert into effects (consumer, key, n) values ('second', 'k', $1)`, e.Data.N); err != nil {
			return err
		}
		batch.Queue(`insert into effects (consumer, key, n) values ('third', 'k', $1)`, e.Data.N)
		return nil
	})
	r.fill("k", 2)
	r.drain("c", "k")
	r.holds(`select array_agg(consumer order by i) = '{first,second,third,c,first,second,third,c}' from effects`)
}
