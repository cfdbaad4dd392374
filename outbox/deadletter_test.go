package outbox_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// inFlight returns a rig with a failing event that has a job, and one that waits behind it.
func inFlight(t *testing.T, opts ...outbox.Option) (*rig, int64) {
	t.Helper()
	r := failing(t, "ledger", append(opts, outbox.MaxAttempts(3))...)
	r.exec(`insert into broken values (0)`)
	r.append("k", 0, 1)
	r.relay()
	r.drainAll()
	return r, one[int64](r, `select id from river_job where kind = 'outbox_deliver'`)
}

func (r *rig) repairAndReplay() {
	r.t.Helper()
	r.exec(`delete from broken`)
	_, err := r.op.Replay(r.t.Context(), r.letter(0).ID, nil, anna)
	require.NoError(r.t, err)
	r.settle()
	r.applied("ledger", "k", 0, 1)
	r.agrees()
}

// TestJobsThatEndBuryTheirEvents, whoever ends them, and a replay is always possible.
func TestJobsThatEndBuryTheirEvents(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{
		"discarded by a rescuer": `update river_job set state = 'discarded', finalized_at = now() where id = $1`,
		"cancelled":              `update river_job set state = 'cancelled', finalized_at = now(), metadata = '{"cancel_attempted_at": "x"}' where id = $1`,
		"deleted":                `delete from river_job where id = $1`,
		// In the transaction of a delivery that is done, and so deletes its own.
		"deleted beside another": `delete from river_job where id = $1 and set_config('pgoutbox.done', '-1', true) <> ''`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, job := inFlight(t)
			r.exec(end, job)
			r.holds(`select state = 'dead' and attempts = 1 and error <> '' and job_id = $1 from discarded_jobs`, job)
			r.holds(`select dead_at is not null from holds`)
			r.agrees()
			r.repairAndReplay()
		})
	}
}

// TestDoneDeliveryAsksForNoBurial: the trigger is for jobs that end otherwise.
func TestDoneDeliveryAsksForNoBurial(t *testing.T) {
	t.Parallel()
	r, job := inFlight(t)
	r.exec(`create table asked (job bigint)`)
	r.exec(`create or replace function outbox_on_deliver_job() returns trigger language plpgsql as
		$$ begin insert into public.asked values (old.id); return null; end $$`)
	r.exec(`delete from broken`)
	r.settle()
	r.applied("ledger", "k", 0, 1)
	r.holds(`select not exists (select from river_job where id = $1)`, job)
	r.holds(`select not exists (select from asked)`)
	r.agrees()
}

// TestRetryInRiversTools: a discarded job that is made available again is a replay.
func TestRetryInRiversTools(t *testing.T) {
	t.Parallel()
	r, job := inFlight(t)
	for r.deliverAll() > 0 {
		r.agrees()
	}
	r.holds(`select state = 'dead' from discarded_jobs`)
	r.exec(`update river_job set state = 'available', finalized_at = null, max_attempts = max_attempts + 1 where id = $1`, job)
	r.holds(`select state = 'replaying' and replays = 1 from discarded_jobs`)
	r.holds(`select dead_at is null from holds`)
	r.agrees()
	_, err := r.op.Replay(t.Context(), r.letter(0).ID, nil, anna)
	var conflict *outbox.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, job, conflict.JobID)
	r.exec(`delete from broken`)
	r.settle()
	r.applied("ledger", "k", 0, 1)
	r.holds(`select state = 'replayed' from discarded_jobs`)
	r.agrees()
}

// TestTriggerNeverFailsRiver: with the tables it needs broken, or locked, River's own statements still succeed, and the
// reconciler finds what was missed.
func TestTriggerNeverFailsRiver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ damage, mend string }{
		"letters gone": {`alter table discarded_jobs rename to elsewhere`, `alter table elsewhere rename to discarded_jobs`},
		"log gone":     {`alter table delivery_log rename to elsewhere`, `alter table elsewhere rename to delivery_log`},
		"letter refused": {
			`alter table discarded_jobs add constraint never check (id < 0)`, `alter table discarded_jobs drop constraint never`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, job := inFlight(t)
			r.exec(c.damage)
			r.exec(`update river_job set state = 'discarded', finalized_at = now() where id = $1`, job)
			r.holds(`select dead_at is null from holds`)
			r.exec(c.mend)
			r.exec(`update holds set changed_at = now() - interval '6 seconds'`)
			require.NoError(t, r.Maintain(t.Context()))
			r.holds(`select state = 'dead' from discarded_jobs`)
			r.agrees()
			r.repairAndReplay()
		})
	}
	t.Run("hold locked", func(t *testing.T) {
		t.Parallel()
		r, job := inFlight(t)
		tx, err := r.pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `select from holds for update`)
		require.NoError(t, err)
		require.NoError(t, pgx.BeginFunc(t.Context(), r.pool, func(river pgx.Tx) error {
			if _, err := river.Exec(t.Context(), `set local lock_timeout = 0; set local statement_timeout = '5s'`); err != nil {
				return err
			}
			_, err := river.Exec(t.Context(), `update river_job set state = 'discarded', finalized_at = now() where id = $1`, job)
			return err
		}))
		require.NoError(t, tx.Rollback(t.Context()))
		r.holds(`select dead_at is null from holds`)
	})
}

// TestLostJobsAreGivenAgain: TRUNCATE fires no trigger, and a job may be gone in other ways.
func TestLostJobsAreGivenAgain(t *testing.T) {
	t.Parallel()
	r, job := inFlight(t)
	r.exec(`truncate river_job`)
	require.NoError(t, r.Maintain(t.Context()))
	r.holds(`select not exists (select from river_job where kind = 'outbox_deliver')`) // it may be on its way
	r.exec(`update holds set changed_at = now() - interval '6 seconds'`)
	require.NoError(t, r.Maintain(t.Context()))
	next := one[int64](r, `select id from river_job where kind = 'outbox_deliver' and max_attempts = 2`)
	require.NotEqual(t, job, next)
	r.exec(`update river_job set state = 'completed', finalized_at = now() where id = $1`, next) // a zombie ended it
	r.exec(`update holds set changed_at = now() - interval '6 seconds'`)
	require.NoError(t, r.Maintain(t.Context()))
	r.exec(`delete from broken`)
	r.settle()
	r.applied("ledger", "k", 0, 1)
	r.agrees()
}

func TestReplaysRace(t *testing.T) {
	t.Parallel()
	r, job := inFlight(t)
	r.exec(`delete from river_job where id = $1`, job)
	id := r.letter(0).ID
	results := make([]error, 8)
	var all sync.WaitGroup
	for i := range results {
		all.Go(func() {
			if i == 0 {
				_, results[i] = r.op.Dismiss(t.Context(), id, anna)
			} else {
				_, results[i] = r.op.Replay(t.Context(), id, nil, anna)
			}
		})
	}
	all.Wait()
	won := 0
	for _, err := range results {
		var conflict *outbox.ConflictError
		if err == nil {
			won++
		} else {
			require.ErrorAs(t, err, &conflict)
		}
	}
	require.Equal(t, 1, won)
	r.holds(`select count(*) = 1 from audit`)
	r.holds(`select (select count(*) from river_job where kind = 'outbox_deliver') = (select replays from discarded_jobs)`)
	r.agrees()
}

// TestCompletedJobDoesNotBlockAReplay, and a live one does, by name.
func TestCompletedJobDoesNotBlockAReplay(t *testing.T) {
	t.Parallel()
	r, job := inFlight(t)
	event := r.oneEvent(0)
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = r.jobs.Deliver(t.Context(), tx, []outbox.Delivery{{Consumer: "ledger", EventID: event, MaxAttempts: 1}})
	var conflict *outbox.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, job, conflict.JobID)
	require.NoError(t, tx.Rollback(t.Context()))
	for _, state := range []string{"running", "retryable", "scheduled", "pending"} {
		r.exec(`update river_job set state = $2::text::river_job_state where id = $1`, job, state)
		tx, err := r.pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = r.jobs.Deliver(t.Context(), tx, []outbox.Delivery{{Consumer: "ledger", EventID: event, MaxAttempts: 1}})
		require.ErrorAs(t, err, &conflict, state)
		require.NoError(t, tx.Rollback(t.Context()))
	}
	r.exec(`update river_job set state = 'completed', finalized_at = now() where id = $1`, job)
	tx, err = r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = r.jobs.Deliver(t.Context(), tx, []outbox.Delivery{{Consumer: "ledger", EventID: event, MaxAttempts: 1}})
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
}

// What its consumer may have done outside is given up by force alone, and the audit says what that was. Asking fails the dismissal.
func TestDismissOfWhatMayHaveHappened(t *testing.T) {
	t.Parallel()
	var happened string
	var asked []uuid.UUID
	failed := errors.New("it cannot be told")
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "charges", brokenNow, outbox.On("note.*"), outbox.MaxAttempts(1),
		outbox.MayHaveHappened(func(ctx context.Context, tx pgx.Tx, eventID uuid.UUID) (string, error) {
			asked = append(asked, eventID)
			if happened == "error" {
				return "", failed
			}
			_, err := tx.Exec(ctx, `select 1`)
			return happened, err
		}))
	r := newRig(t, reg)
	r.exec(`create table broken (n int)`)
	r.exec(`insert into broken values (1), (1), (2), (2)`)
	r.append("a", 1)
	r.append("b", 2)
	r.settle()
	code := r.op.WithConsumers(reg)
	id, event := one[int64](r, `select id from discarded_jobs where key = 'a'`), one[uuid.UUID](r, `select event_id from discarded_jobs where key = 'a'`)

	happened = "error"
	_, err := code.Dismiss(t.Context(), id, anna)
	require.ErrorIs(t, err, failed)
	happened = "a card may have been charged"
	_, err = code.Dismiss(t.Context(), id, anna)
	var conflict *outbox.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.True(t, conflict.OutcomeUnknown)
	require.ErrorContains(t, err, "outcome unknown: a card may have been charged")
	r.holds(`select count(*) = 2 and bool_and(state = 'dead') from discarded_jobs`)
	r.holds(`select not exists (select from audit)`)

	_, err = code.Dismiss(t.Context(), id, outbox.Action{Actor: "anna", Reason: "paid in cash", Force: true})
	require.NoError(t, err)
	r.holds(`select (detail ->> 'forced')::boolean and detail ->> 'outcome_unknown' = 'a card may have been charged' from audit`)
	require.Equal(t, []uuid.UUID{event, event, event}, asked)

	happened = ""
	_, err = code.Dismiss(t.Context(), one[int64](r, `select id from discarded_jobs where key = 'b'`), anna)
	require.NoError(t, err)
	r.holds(`select not exists (select from audit where id > 1 and detail ? 'forced')`)
}

func TestUnknownLettersAndConsumers(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger")
	_, err := r.op.Replay(t.Context(), 1, nil, anna)
	require.ErrorIs(t, err, outbox.ErrNotFound)
	_, err = r.op.Dismiss(t.Context(), 1, anna)
	require.ErrorIs(t, err, outbox.ErrNotFound)
	require.ErrorIs(t, r.op.Pause(t.Context(), "nobody", anna), outbox.ErrNotFound)
	require.Nil(t, outbox.Permanent(nil))
	require.True(t, outbox.IsPermanent(errors.Join(errors.New("a"), outbox.Permanent(errors.New("b")))))
}
