package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// dead is a rig with n dead letters of one cause, of keys of their own, and some of another. (Numbers from 400 to 599 would be causes.)
func dead(t *testing.T, n, others int, opts ...outbox.Option) *rig {
	t.Helper()
	r := failing(t, "ledger", append(opts, outbox.MaxAttempts(1))...)
	r.exec(`insert into broken select 1000 + i from generate_series(1, $1) i, generate_series(1, 2)`, n)
	r.exec(`insert into broken select 1000 + $1 + i from generate_series(1, $2) i`, n, others)
	require.NoError(t, pgx.BeginFunc(t.Context(), r.pool, func(tx pgx.Tx) error {
		for i := range n + others {
			if _, err := outbox.Append(t.Context(), tx, outbox.Event{Type: "note.taken", Key: fmt.Sprint("k", i), Data: note{1001 + i}}); err != nil {
				return err
			}
		}
		return nil
	}))
	r.settle()
	r.holds(`select count(*) = $1 and bool_and(state = 'dead') from discarded_jobs`, n+others)
	return r
}

func (r *rig) beginAll(b outbox.BulkReplay, force bool) int64 {
	r.t.Helper()
	b.Rate = max(b.Rate, 1000)
	op, err := r.op.ReplayAll(r.t.Context(), b, outbox.Action{Actor: "anna", Reason: "a test", Force: force})
	require.NoError(r.t, err)
	return op.ID
}

// operate takes steps until nothing is to be done at once.
func (r *rig) operate() {
	r.t.Helper()
	for {
		r.exec(`update operations set next_at = clock_timestamp() - interval '1 minute' where ended_at is null`) // no test waits for its turn
		wait, err := r.Operate(r.t.Context())
		require.NoError(r.t, err)
		if wait > 0 {
			return
		}
	}
}

// finishOperation goes on until an operation has ended.
func (r *rig) finishOperation(id int64) *outbox.OperationDetail {
	r.t.Helper()
	for range 1000 {
		r.operate()
		op, err := r.op.Operation(r.t.Context(), id)
		require.NoError(r.t, err)
		if op.EndedAt != nil {
			return op
		}
		r.settle()
	}
	r.t.Fatal("the operation does not end")
	return nil
}

// 412 letters of one cause: one goes first, the others follow it, each is replayed once, by whoever steps the operation, and the audit tells all
// of it.
func TestReplayAll(t *testing.T) {
	t.Parallel()
	const n = 412
	r := dead(t, n, 0)
	r.exec(`delete from broken`)
	groups, err := r.op.LetterGroups(t.Context(), outbox.LetterFilter{State: "dead"}, nil, 10)
	require.NoError(t, err)
	require.Len(t, groups, 1)
	id := r.beginAll(outbox.BulkReplay{Filter: outbox.LetterFilter{Consumer: "ledger", Fingerprint: groups[0].Fingerprint}}, false)

	r.operate()
	r.operate()
	r.holds(`select count(*) = 1 from discarded_jobs where state = 'replaying'`)
	r.holds(`select state = 'canary' and replayed = 1 from operations`)
	r.settle()
	r.operate()
	r.holds(`select state = 'running' and succeeded = 1 and replayed > 50 from operations`)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var runners sync.WaitGroup
	for range 2 {
		runners.Go(func() {
			for ctx.Err() == nil {
				if _, err := r.Operate(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	require.Eventually(t, func() bool {
		r.deliverAll()
		return one[bool](r, `select ended_at is not null from operations`)
	}, 2*time.Minute, 5*time.Millisecond)
	cancel()
	runners.Wait()
	r.settle()

	op, err := r.op.Operation(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, [6]any{"done", int64(n), int64(n), int64(n), int64(0), int64(0)},
		[6]any{op.State, op.Total, op.Replayed, op.Succeeded, op.FailedAgain, op.Skipped})
	r.holds(`select count(*) = $1 and bool_and(state = 'replayed' and replays = 1) from discarded_jobs`, n)
	r.holds(`select count(*) = $1 and count(distinct event_id) = $1 from effects`, n)
	r.holds(`select count(*) = $1 and count(distinct target) = $1 from audit where action = 'replay' and actor = 'anna' and (detail->>'operation')::bigint = $2`, n, id)
	r.holds(`select count(*) = 1 and bool_and(target = 'operation ' || $1 and reason = 'a test' and detail @> '{"letters": 412, "canary": true}')
		from audit where action = 'replay all'`, fmt.Sprint(id))
	r.agrees()
	_, err = r.op.ReplayAll(t.Context(), outbox.BulkReplay{}, anna)
	var conflict *outbox.ConflictError
	require.ErrorAs(t, err, &conflict)
	all, err := r.op.Operations(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Len(t, all, 1)
}

// A canary that fails again stops its group, of which nothing else is touched, and no other group.
func TestCanaryThatFailsStopsItsGroup(t *testing.T) {
	t.Parallel()
	r := dead(t, 10, 5)
	r.exec(`delete from broken where n > 1010`)
	op := r.finishOperation(r.beginAll(outbox.BulkReplay{}, false))
	require.Equal(t, "stopped", op.State)
	require.Equal(t, "1 of 2 groups failed again", op.Stopped)
	require.Equal(t, [4]int64{15, 6, 5, 1}, [4]int64{op.Total, op.Replayed, op.Succeeded, op.FailedAgain})
	r.holds(`select count(*) = 9 from discarded_jobs where state = 'dead' and replays = 0`)
	r.holds(`select count(*) = 5 from effects where n > 1010`)
	require.Len(t, op.Groups, 2)
	require.Equal(t, [2]string{"stopped", "# is broken for good"}, [2]string{op.Groups[0].State, op.Groups[0].Error})
	require.Equal(t, "running", op.Groups[1].State)
	require.Len(t, op.Trouble, 1)
	require.Equal(t, *op.Groups[0].CanaryID, op.Trouble[0].ID)
	r.holds(`select reason ~ 'its canary, failed again: # is broken for good$' from audit where actor = 'pgoutbox'`)
	r.agrees()
}

// Without a canary it stops when it is clear that nothing has changed.
func TestReplayAllStopsByItself(t *testing.T) {
	t.Parallel()
	r := dead(t, 130, 0)
	id := r.beginAll(outbox.BulkReplay{NoCanary: true}, false)
	r.operate()
	r.holds(`select replayed = 100 from operations`)
	op := r.finishOperation(id)
	require.Equal(t, "stopped", op.State)
	require.Equal(t, [2]int64{100, 100}, [2]int64{op.Replayed, op.FailedAgain})
	r.holds(`select count(*) = 30 from discarded_jobs where state = 'dead' and replays = 0`)
	r.holds(`select count(*) = 1 and bool_and(reason ~ '^20 letters in a row') from audit where actor = 'pgoutbox'`)
	r.agrees()
}

// An operator stops it: nothing more is sent, and what is in flight is still counted.
func TestStopOperation(t *testing.T) {
	t.Parallel()
	r := dead(t, 20, 0)
	r.exec(`delete from broken`)
	id := r.beginAll(outbox.BulkReplay{NoCanary: true}, false)
	for range 3 {
		_, err := r.Operate(t.Context())
		require.NoError(t, err)
		r.exec(`update operations set next_at = clock_timestamp() - interval '1 minute'`)
	}
	_, err := r.op.StopOperation(t.Context(), id, outbox.Action{Actor: "anna"})
	require.ErrorIs(t, err, outbox.ErrReasonRequired)
	op, err := r.op.StopOperation(t.Context(), id, anna)
	require.NoError(t, err)
	require.Equal(t, [2]string{"stopped", "by anna: a test"}, [2]string{op.State, op.Stopped})
	require.Nil(t, op.EndedAt)
	r.operate()
	r.holds(`select replayed = 3 and succeeded = 0 and ended_at is null from operations`)
	op = r.finishOperation(id)
	require.Equal(t, [2]int64{3, 3}, [2]int64{op.Replayed, op.Succeeded})
	require.Equal(t, "stopped", op.State)
	_, err = r.op.StopOperation(t.Context(), id, anna)
	var conflict *outbox.ConflictError
	require.ErrorAs(t, err, &conflict)
	_, err = r.op.StopOperation(t.Context(), id+1, anna)
	require.ErrorIs(t, err, outbox.ErrNotFound)
	r.holds(`select count(*) = 1 from audit where action = 'stop' and actor = 'anna' and target = 'operation ' || $1`, fmt.Sprint(id))
	r.agrees()
}

// A letter has its turn when the rate says so, by the database's clock, whoever asks.
func TestReplayAllKeepsItsRate(t *testing.T) {
	t.Parallel()
	r := dead(t, 3, 0)
	_, err := r.op.ReplayAll(t.Context(), outbox.BulkReplay{Rate: 1001}, anna)
	require.Error(t, err)
	_, err = r.op.ReplayAll(t.Context(), outbox.BulkReplay{Rate: 2, NoCanary: true}, anna)
	require.NoError(t, err)
	step := func() {
		_, err := r.Operate(t.Context())
		require.NoError(t, err)
	}
	step()
	r.holds(`select replayed = 1 and next_at > created_at + interval '490 milliseconds' from operations`)
	r.exec(`update operations set next_at = clock_timestamp() + interval '1 hour'`)
	step()
	r.holds(`select replayed = 1 from operations`)
	r.exec(`update operations set next_at = clock_timestamp() - interval '1 hour'`)
	step()
	r.holds(`select replayed = 2 and next_at > clock_timestamp() - interval '10 minutes' from operations`)
}

// Letters that changed meanwhile are skipped, and so are those that would be replayed out of order, unless that is forced; of a key, they go
// in the order of its events.
func TestReplayAllKeepsOrder(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.OnDead(outbox.Skip), outbox.MaxAttempts(1))
	r.exec(`insert into broken values (1), (2), (2), (3), (9)`) // 2 is a group of its own
	r.append("k", 1, 2, 3, 4)
	r.append("other", 9)
	r.settle()
	r.applied("ledger", "k", 4)
	r.exec(`delete from broken`)
	id := r.beginAll(outbox.BulkReplay{}, false)
	r.dismiss(r.letter(9).ID)
	op := r.finishOperation(id)
	require.Equal(t, "done", op.State)
	require.Equal(t, [4]int64{4, 0, 0, 4}, [4]int64{op.Total, op.Replayed, op.Succeeded, op.Skipped})
	require.Len(t, op.Trouble, 4)
	require.Contains(t, op.Trouble[0].Error, "must be forced")
	op = r.finishOperation(r.beginAll(outbox.BulkReplay{NoCanary: true}, true))
	require.Equal(t, [4]int64{3, 3, 3, 0}, [4]int64{op.Total, op.Replayed, op.Succeeded, op.Skipped})
	r.applied("ledger", "k", 4, 1, 2, 3)
	r.holds(`select not exists (select from operation_letters where state = 'succeeded')`)
	r.agrees()
}

// A letter that is dismissed while it is in flight, and a canary that is, keep nobody waiting.
func TestCanaryThatIsGone(t *testing.T) {
	t.Parallel()
	r := dead(t, 5, 0)
	r.exec(`delete from broken`)
	id := r.beginAll(outbox.BulkReplay{}, false)
	r.operate()
	r.exec(`delete from discarded_jobs where state = 'replaying'`)
	r.operate()
	r.holds(`select replayed = 1 and skipped = 1 and state = 'canary' from operations`)
	op := r.finishOperation(id)
	require.Equal(t, "done", op.State)
	require.Equal(t, [3]int64{4, 4, 1}, [3]int64{op.Replayed, op.Succeeded, op.Skipped})
}

// A step that fails leaves nothing behind, neither of the replay nor of what is said of it, and is made again.
func TestStepThatFailsIsMadeAgain(t *testing.T) {
	t.Parallel()
	r := dead(t, 3, 0)
	r.exec(`delete from broken`)
	id := r.beginAll(outbox.BulkReplay{}, false)
	r.exec(`alter table operation_letters add constraint never check (state <> 'replaying')`)
	_, err := r.Operate(t.Context())
	require.Error(t, err)
	require.False(t, errors.Is(err, outbox.ErrNotFound))
	r.holds(`select replayed = 0 from operations`)
	r.holds(`select count(*) = 3 from discarded_jobs where state = 'dead' and replays = 0`)
	r.exec(`alter table operation_letters drop constraint never`)
	op := r.finishOperation(id)
	require.Equal(t, [2]int64{3, 3}, [2]int64{op.Replayed, op.Succeeded})
	r.agrees()
}

// The planner sees through the filter: it comes to the letters by what the filter names.
func TestFilterOfLettersIsPlanned(t *testing.T) {
	t.Parallel()
	r := newRig(t, outbox.NewRegistry())
	r.exec(`insert into discarded_jobs (consumer, event_id, type, key, lane, pos, data, correlation_id, attempts, errors, error, state)
		select 'c', gen_random_uuid(), 'a.b', 'k' || i, 0, i, '{}', 'corr-' || i, 1, '[]', 'broken' || chr(65 + i % 50), 'dead' from generate_series(1, 10000) i`)
	r.exec(`analyze discarded_jobs`)
	for filter, index := range map[string]string{
		`{"state": "dead", "correlation_id": "corr-7"}`:                  "discarded_jobs_correlation_id_idx",
		`{"state": "dead", "fingerprint": "` + "0123456789abcdef" + `"}`: "discarded_jobs_fingerprint_idx",
	} {
		rows, err := r.pool.Query(t.Context(), `explain select id from discarded_jobs d where outbox_letter_matches(d, '`+filter+`')`)
		require.NoError(t, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.Contains(t, fmt.Sprint(lines), index)
		require.NotContains(t, fmt.Sprint(lines), "outbox_letter_matches")
	}
}
