package outbox_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/pgoutbox/pgoutbox/outbox"
)

var modelTime = flag.Duration("model", 4*time.Second, "how long to try new courses of events against the model")

// world is what the model knows: what was produced per key, what fails at present, and what was given up.
type world struct {
	mu        sync.Mutex
	produced  map[string][]int32
	fails     map[string]map[int]bool // by consumer
	dismissed map[string]map[int32]bool
	late      pgx.Tx // a producer that has appended and not committed
	lateN     int32
}

const (
	lateKey      = "late"
	scheduledKey = "scheduled"
)

func (w *world) failsNow(consumer string, n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fails[consumer][n]
}

// failSomehow fails at once, where its statement is sent, or where it is done with the others of its batch.
func failSomehow(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
	switch e.Data.N % 3 {
	case 0:
		return errors.New("fails now")
	case 1:
		_, err := tx.Exec(ctx, `select 1/0`)
		return err
	}
	outbox.Batch(ctx).Queue(`select 1/0`)
	return nil
}

// effectSomehow sends the effect's statement, or has it done with the others of its batch.
func effectSomehow(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
	if e.Data.N%4 == 0 {
		return effect(ctx, tx, e)
	}
	outbox.Batch(ctx).Queue(`insert into effects (consumer, key, event_id, n) values ($1, $2, $3, $4)`, e.Consumer, e.Key, e.ID, e.Data.N)
	return nil
}

// TestAgainstAModel lets producers, late commits, scheduled events, failing handlers, two relays, killed connections, rescues,
// replays, dismissals, pauses and backfills happen in any order, and in the end everything works again: every effect has happened
// once, in order per key, but for what was dismissed, and for the place of what was skipped, or run again. -model says for how long; a seed that failed is
// replayed as rapid says (-rapid.seed).
func TestAgainstAModel(t *testing.T) {
	t.Parallel()
	consumers := []string{"again", "ledger", "mail", "report", "search", "skipper"}
	steps := 0
	t.Cleanup(func() { t.Logf("%d steps", steps) })
	until := time.Now().Add(*modelTime)
	rapid.Check(t, func(rt *rapid.T) {
		if time.Now().After(until) && !t.Failed() {
			return
		}
		var panicked any               // rapid ends a course by a panic, which has to reach it
		t.Run("", func(t *testing.T) { // a database of its own, dropped at the end
			defer func() { panicked = recover() }()
			w := &world{produced: map[string][]int32{}, fails: map[string]map[int]bool{}, dismissed: map[string]map[int32]bool{}}
			for _, c := range consumers {
				w.fails[c], w.dismissed[c] = map[int]bool{}, map[int32]bool{}
			}
			reg := outbox.NewRegistry()
			handle := func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
				if w.failsNow(e.Consumer, e.Data.N) {
					return failSomehow(ctx, tx, e)
				}
				return effectSomehow(ctx, tx, e)
			}
			outbox.Handle(reg, "ledger", handle, outbox.On("note.*"), outbox.MaxAttempts(2))
			outbox.Handle(reg, "again", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
				if e.Backfill != 0 {
					if _, err := tx.Exec(ctx, `delete from effects where consumer = 'again' and event_id = $1`, e.ID); err != nil {
						return err
					}
				}
				return handle(ctx, tx, e)
			}, outbox.On("note.*"), outbox.MaxAttempts(2))
			outbox.Handle(reg, "search", handle, outbox.On("note.*"), outbox.MaxAttempts(2), outbox.Unordered())
			outbox.Handle(reg, "skipper", handle, outbox.On("note.*"), outbox.MaxAttempts(2), outbox.OnDead(outbox.Skip))
			outbox.HandleBatch(reg, "report", func(ctx context.Context, tx pgx.Tx, events []outbox.Received[note]) error {
				for _, e := range events {
					if err := handle(ctx, tx, e); err != nil {
						return err
					}
				}
				return nil
			}, outbox.On("note.*"), outbox.MaxAttempts(2))
			outbox.HandleExternal(reg, "mail", func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
				if w.failsNow(e.Consumer, e.Data.N) {
					return nil, errors.New("fails now")
				}
				return recorded(e), nil
			}, outbox.On("note.*"), outbox.MaxAttempts(2))
			r := newRig(t, reg)
			next := 0
			steps += w.play(rt, r, consumers, &next)

			// Everything works again.
			w.endLate(t, true)
			w.mu.Lock()
			for _, c := range consumers {
				clear(w.fails[c])
			}
			w.mu.Unlock()
			for _, c := range consumers {
				require.NoError(t, r.op.Resume(t.Context(), c, anna))
			}
			r.exec(`update scheduled set not_before = not_before - interval '1 day'`)
			for range 50 {
				r.settle()
				if r.replayAll() == 0 {
					break
				}
			}
			r.agrees()
			r.holds(`select not exists (select from holds) and not exists (select from waiting)`)
			for _, c := range consumers {
				for key, ns := range w.produced {
					want := slices.DeleteFunc(slices.Clone(ns), func(n int32) bool { return w.dismissed[c][n] })
					got := one[[]int32](r, `select coalesce(array_agg(n order by i), '{}') from effects where consumer = $1 and key = $2`, c, key)
					switch c {
					case "search", "again":
						slices.Sort(got)
						slices.Sort(want)
					case "skipper": // those that were never dead are in order among themselves
						dead := one[[]int32](r, `select coalesce(array_agg((data->>'n')::int), '{}') from discarded_jobs where consumer = $1 and key = $2`, c, key)
						alive := func(n int32) bool { return !slices.Contains(dead, n) }
						require.Equal(t, only(want, alive), only(got, alive), "%s of %s", c, key)
						slices.Sort(got)
					}
					require.Equal(t, append([]int32{}, want...), append([]int32{}, got...), "%s of %s", c, key)
				}
			}
		})
		if panicked != nil {
			panic(panicked)
		}
		if t.Failed() {
			rt.FailNow()
		}
	})
}

func only(ns []int32, keep func(int32) bool) []int32 {
	kept := []int32{}
	for _, n := range ns {
		if keep(n) {
			kept = append(kept, n)
		}
	}
	return kept
}

// endLate ends the late producer's transaction.
func (w *world) endLate(t testing.TB, commit bool) {
	t.Helper()
	if w.late == nil {
		return
	}
	if commit {
		require.NoError(t, w.late.Commit(t.Context()))
		w.produced[lateKey] = append(w.produced[lateKey], w.lateN)
	} else {
		require.NoError(t, w.late.Rollback(t.Context()))
	}
	w.late = nil
}

// play takes some steps and returns how many.
func (w *world) play(rt *rapid.T, r *rig, consumers []string, next *int) int {
	consumer, key := rapid.SampledFrom(consumers), rapid.SampledFrom([]string{"a", "b", "c"})
	seed := rapid.Uint64().Draw(rt, "seed")
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test's
	actions := map[string]func(*rapid.T){
		"produce": func(rt *rapid.T) {
			k := key.Draw(rt, "key")
			for range rapid.IntRange(1, 5).Draw(rt, "count") {
				*next++
				w.mu.Lock()
				for _, c := range consumers {
					w.fails[c][*next] = random.IntN(4) == 0
				}
				w.mu.Unlock()
				r.append(k, *next)
				w.produced[k] = append(w.produced[k], int32(*next))
			}
		},
		"append and wait": func(*rapid.T) {
			if w.late != nil {
				return
			}
			*next++
			tx, err := r.pool.Begin(r.t.Context())
			require.NoError(r.t, err)
			_, err = outbox.Append(r.t.Context(), tx, outbox.Event{Type: "note.taken", Key: lateKey, Data: note{*next}})
			require.NoError(r.t, err)
			w.late, w.lateN = tx, int32(*next)
		},
		"schedule": func(*rapid.T) {
			*next++
			e := at(scheduledKey, *next, time.Now().Add(time.Hour+time.Duration(*next)*time.Second))
			require.NoError(r.t, pgx.BeginFunc(r.t.Context(), r.pool, func(tx pgx.Tx) error {
				_, err := outbox.Append(r.t.Context(), tx, e)
				return err
			}))
			w.produced[scheduledKey] = append(w.produced[scheduledKey], int32(*next))
		},
		"due": func(*rapid.T) { r.exec(`update scheduled set not_before = not_before - interval '1 day'`) },
		"backfill": func(*rapid.T) {
			_, err := r.op.Backfill(r.t.Context(), "again", outbox.Backfill{From: outbox.Beginning}, anna)
			var conflict *outbox.ConflictError
			if !errors.As(err, &conflict) {
				require.NoError(r.t, err)
			}
		},
		"stop a backfill": func(*rapid.T) {
			all, err := r.op.Backfills(r.t.Context(), "again")
			require.NoError(r.t, err)
			if len(all) > 0 && all[0].State == "running" {
				_, err := r.op.StopBackfill(r.t.Context(), all[0].ID, anna)
				require.NoError(r.t, err)
			}
		},
		"commit late": func(rt *rapid.T) { w.endLate(r.t, rapid.Bool().Draw(rt, "commits")) },
		"two relays": func(*rapid.T) {
			other := r.startRelay()
			r.relay()
			require.NoError(r.t, other())
		},
		"kill connections": func(*rapid.T) {
			w.endLate(r.t, true)
			r.killed(1 + random.IntN(3))
		},
		"relay": func(*rapid.T) { r.relay() },
		"drain": func(*rapid.T) {
			var both sync.WaitGroup
			for range 2 {
				both.Go(r.drainAll)
			}
			both.Wait()
		},
		"deliver": func(*rapid.T) {
			for _, job := range one[[]int64](r, unfinishedJobs) {
				_ = r.attempt(job)
			}
		},
		"die in a delivery": func(*rapid.T) {
			if jobs := one[[]int64](r, unfinishedJobs); len(jobs) > 0 {
				job := jobs[random.IntN(len(jobs))]
				r.begin(job)
				r.hungFor(job, "1 hour")
				require.NoError(r.t, r.Maintain(r.t.Context()))
			}
		},
		"lose the jobs": func(*rapid.T) {
			r.exec(`truncate river_job`)
			r.exec(`update holds set changed_at = now() - interval '1 hour'`)
			require.NoError(r.t, r.Maintain(r.t.Context()))
		},
		"end a job": func(rt *rapid.T) {
			sql := rapid.SampledFrom([]string{`delete from river_job where id = $1`, `update river_job set state = 'cancelled', finalized_at = now() where id = $1`}).Draw(rt, "how")
			if jobs := one[[]int64](r, unfinishedJobs); len(jobs) > 0 {
				r.exec(sql, jobs[random.IntN(len(jobs))])
			}
		},
		"repair": func(rt *rapid.T) {
			w.mu.Lock()
			defer w.mu.Unlock()
			clear(w.fails[consumer.Draw(rt, "consumer")])
		},
		"replay": func(*rapid.T) { r.replayAll() },
		"dismiss": func(rt *rapid.T) {
			// Not those of the one that is run again: that gives a dismissed event another try.
			letters, err := r.op.Letters(r.t.Context(), outbox.LetterFilter{State: "dead", Consumer: rapid.SampledFrom(consumers[1:]).Draw(rt, "of")}, 0, 1)
			require.NoError(r.t, err)
			for _, l := range letters {
				r.dismiss(l.ID)
				w.dismissed[l.Consumer][one[int32](r, `select (data->>'n')::int from discarded_jobs where id = $1`, l.ID)] = true
			}
		},
		"pause": func(rt *rapid.T) {
			require.NoError(r.t, r.op.Pause(r.t.Context(), consumer.Draw(rt, "consumer"), anna))
		},
		"resume": func(rt *rapid.T) {
			require.NoError(r.t, r.op.Resume(r.t.Context(), consumer.Draw(rt, "consumer"), anna))
		},
	}
	names := []string{"produce", "produce", "relay", "drain", "drain", "deliver", "deliver"}
	for name := range actions {
		names = append(names, name)
	}
	slices.Sort(names)
	steps := rapid.IntRange(10, 40).Draw(rt, "steps")
	for i := range steps {
		actions[rapid.SampledFrom(names).Draw(rt, fmt.Sprint("step ", i))](rt)
		r.agrees()
	}
	return steps
}

// killed has a relay, drains and deliveries run, and ends all their connections some times while they do.
func (r *rig) killed(times int) {
	r.t.Helper()
	killer, err := pgx.ConnectConfig(r.t.Context(), r.pool.Config().ConnConfig)
	require.NoError(r.t, err)
	defer func() { require.NoError(r.t, killer.Close(r.t.Context())) }()
	lanes := r.lanesWithWork()
	jobs := one[[]int64](r, unfinishedJobs)
	results := make([]error, len(jobs))
	var deliveries []func()
	for i, job := range jobs {
		consumer, event := r.begin(job)
		deliveries = append(deliveries, func() { results[i] = r.Deliver(r.t.Context(), job, consumer, event) })
	}

	stop := r.startRelay()
	var working sync.WaitGroup
	ended := make(chan struct{})
	working.Go(func() {
		for _, l := range lanes {
			_, _ = r.Drain(r.t.Context(), l, 0, time.Minute) // it may be what is killed
		}
	})
	working.Go(func() {
		for _, deliver := range deliveries {
			deliver()
		}
	})
	go func() {
		working.Wait()
		close(ended)
	}()
	const others = ` from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'`
	for range times {
		require.Eventually(r.t, func() bool {
			select {
			case <-ended:
				return true
			default:
			}
			var busy bool
			require.NoError(r.t, killer.QueryRow(r.t.Context(), `select count(*) > 0`+others+` and state <> 'idle'`).Scan(&busy))
			return busy
		}, 20*time.Second, time.Millisecond)
		_, err := killer.Exec(r.t.Context(), `select pg_terminate_backend(pid)`+others)
		require.NoError(r.t, err)
	}
	<-ended
	require.NoError(r.t, stop())
	r.pool.Reset() // the idle ones are dead, too
	for i, job := range jobs {
		r.finish(job, results[i])
	}
}

// replayAll replays every dead letter that can be, and returns how many.
func (r *rig) replayAll() (replayed int) {
	r.t.Helper()
	letters, err := r.op.Letters(r.t.Context(), outbox.LetterFilter{State: "dead"}, 0, 1000)
	require.NoError(r.t, err)
	for _, l := range letters {
		by := anna
		by.Force = l.Skipped
		_, err := r.op.Replay(r.t.Context(), l.ID, nil, by)
		var held *outbox.ConflictError
		if l.Skipped && errors.As(err, &held) {
			continue // another of its key has its turn
		}
		require.NoError(r.t, err)
		replayed++
	}
	return replayed
}
