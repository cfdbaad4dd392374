package outbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// called returns a rig with one external consumer, an event on its way, and its job.
func called(t *testing.T, fn func(ctx context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error), opts ...outbox.Option) (*rig, int64) {
	t.Helper()
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "mail", fn, append(opts, outbox.On("note.*"))...)
	r := newRig(t, reg)
	r.append("k", 1)
	r.relay()
	r.drainAll()
	return r, one[int64](r, `select id from river_job where kind = 'outbox_deliver'`)
}

func recorded(e outbox.Received[note]) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error { return effect(ctx, tx, e) }
}

// zombie starts an attempt whose handler hangs, and returns what lets it go on and then waits for its result.
func (r *rig) zombie(job int64, hangs <-chan struct{}, goOn chan<- struct{}) (wake func() error) {
	r.t.Helper()
	consumer, event := r.begin(job)
	result := make(chan error, 1)
	go func() { result <- r.Deliver(r.t.Context(), job, consumer, event) }()
	<-hangs
	return func() error {
		close(goOn)
		return <-result
	}
}

func hanging() (fn func(ctx context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error), hangs, goOn chan struct{}) {
	hangs, goOn = make(chan struct{}), make(chan struct{})
	return func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		if e.Attempt == 1 {
			close(hangs)
			<-goOn
		}
		return recorded(e), nil
	}, hangs, goOn
}

func (r *rig) hungFor(job int64, d string) {
	r.t.Helper()
	r.exec(`update river_job set attempted_at = now() - $2::interval where id = $1`, job, d)
	r.exec(`update holds set changed_at = now() - $2::interval where job_id = $1`, job, d)
}

func TestZombieRecordsNothing(t *testing.T) {
	t.Parallel()
	for name, settled := range map[string]bool{"after the second attempt": true, "before the second attempt": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn, hangs, goOn := hanging()
			second := fn
			r, job := called(t, func(ctx context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
				return second(ctx, e)
			})
			wake := r.zombie(job, hangs, goOn)
			r.hungFor(job, "29 seconds")
			require.NoError(t, r.Maintain(t.Context()))
			r.holds(`select state = 'running' from river_job where id = $1`, job)
			r.hungFor(job, "31 seconds")
			require.NoError(t, r.Maintain(t.Context()))
			r.holds(`select state = 'available' and attempt = 0 from river_job where id = $1`, job)

			second = func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
				return recorded(e), nil
			}
			if settled {
				require.NoError(t, r.attempt(job))
				r.holds(`select count(*) = 1 from effects`)
			}
			require.NoError(t, wake())
			if settled {
				r.holds(`select count(*) = 1 from effects`)
			} else {
				r.holds(`select count(*) = 0 from effects`)
				require.NoError(t, r.attempt(job))
			}
			r.settle()
			r.applied("mail", "k", 1)
			r.agrees()
		})
	}
}

// TestAttemptWhoseJobAZombieEnded: River ends the job of whoever returns. The attempt that counts settles all the same.
func TestAttemptWhoseJobAZombieEnded(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"completed", "available", "retryable"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			var r *rig
			var job int64
			r, job = called(t, func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
				r.exec(`update river_job set state = $2::text::river_job_state, finalized_at = case when $2 = 'completed' then now() end where id = $1`, job, state)
				return recorded(e), nil
			})
			require.NoError(t, r.attempt(job))
			r.applied("mail", "k", 1)
			r.holds(`select not exists (select from river_job where id = $1 and state <> 'completed')`, job)
			r.agrees()
		})
	}
}

// TestAttemptTakesItsJobFirst: River holds a job when the trigger asks for its hold. An attempt that had them in another order would
// meet it in a deadlock.
func TestAttemptTakesItsJobFirst(t *testing.T) {
	t.Parallel()
	fn, hangs, goOn := hanging()
	r, job := called(t, fn)
	wake := r.zombie(job, hangs, goOn)
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select from river_job where id = $1 for update`, job)
	require.NoError(t, err)
	result := make(chan error, 1)
	go func() { result <- wake() }()
	r.blocked(1)
	_, err = tx.Exec(t.Context(), `select from holds where job_id = $1 for update nowait`, job)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-result)
	r.applied("mail", "k", 1)
	r.holds(`select not exists (select from river_job where id = $1)`, job)
	r.agrees()
}

// TestAttemptThatWasBuriedMeanwhile: cancelling and deleting the job bury the event, and what the attempt did later is not recorded.
func TestAttemptThatWasBuriedMeanwhile(t *testing.T) {
	t.Parallel()
	fn, hangs, goOn := hanging()
	r, job := called(t, fn)
	wake := r.zombie(job, hangs, goOn)
	r.exec(`delete from river_job where id = $1`, job)
	r.holds(`select state = 'dead' from discarded_jobs`)
	require.NoError(t, wake())
	r.holds(`select not exists (select from effects)`)
	r.agrees()
}

// TestRecordHasTimeOfItsOwn: an outside call that took all its time, and succeeded, is recorded.
func TestRecordHasTimeOfItsOwn(t *testing.T) {
	t.Parallel()
	r, job := called(t, func(ctx context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		<-ctx.Done()
		return recorded(e), nil
	}, outbox.Timeout(50*time.Millisecond))
	require.NoError(t, r.attempt(job))
	r.applied("mail", "k", 1)
}

// TestRecordThatDeadlocksSpendsNoAttempt: what the database did after the outside call is no failure of the event.
func TestRecordThatDeadlocksSpendsNoAttempt(t *testing.T) {
	t.Parallel()
	runs := 0
	r, job := called(t, func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return func(ctx context.Context, tx pgx.Tx) error {
			if runs++; runs <= 3 {
				_, err := tx.Exec(ctx, `do $$ begin raise exception 'again' using errcode = 'deadlock_detected'; end $$`)
				return err
			}
			return effect(ctx, tx, e)
		}, nil
	}, outbox.MaxAttempts(1))
	for range 3 {
		var later *outbox.RetryLaterError
		require.ErrorAs(t, r.attempt(job), &later)
		r.agrees()
	}
	require.NoError(t, r.attempt(job))
	r.applied("mail", "k", 1)
	r.holds(`select not exists (select from discarded_jobs)`)
}

func TestTransientFailuresAreFreeThreeTimes(t *testing.T) {
	t.Parallel()
	fails := errors.New("first")
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", func(ctx context.Context, tx pgx.Tx, _ outbox.Received[note]) error {
		if fails != nil {
			return fails
		}
		_, err := tx.Exec(ctx, `do $$ begin raise exception 'again' using errcode = 'serialization_failure'; end $$`)
		return err
	}, outbox.On("note.*"), outbox.MaxAttempts(2))
	r := newRig(t, reg)
	r.append("k", 1)
	r.relay()
	r.drainAll()
	fails = nil
	job := one[int64](r, `select id from river_job where kind = 'outbox_deliver'`)
	for range 3 {
		var later *outbox.RetryLaterError
		require.ErrorAs(t, r.attempt(job), &later)
		r.holds(`select attempts = 1 from holds`)
	}
	require.Error(t, r.attempt(job))
	r.holds(`select state = 'dead' and attempts = 2 from discarded_jobs`)
	r.agrees()
}

func TestPermanentErrorsAreBuriedAtOnce(t *testing.T) {
	t.Parallel()
	r, job := called(t, func(context.Context, outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, outbox.Permanent(errors.New("550 no such\x00 address"))
	})
	require.True(t, outbox.IsPermanent(r.attempt(job)))
	r.holds(`select state = 'dead' and attempts = 1 and error like '550 no such%address' and jsonb_array_length(errors) = 1 from discarded_jobs`)

	tx := failing(t, "ledger")
	tx.exec(`insert into broken values (1), (1)`)
	tx.append("k", 1)
	tx.settle()
	tx.holds(`select state = 'dead' and attempts = 1 and jsonb_array_length(errors) = 1 from discarded_jobs`)
	tx.holds(`select not exists (select from river_job where kind = 'outbox_deliver')`)
	_, err := tx.op.Replay(t.Context(), tx.letter(1).ID, nil, anna)
	require.NoError(t, err)
	tx.settle()
	tx.holds(`select state = 'dead' and attempts = 2 and replays = 1 and jsonb_array_length(errors) = 2 from discarded_jobs`)
	tx.agrees()
}
