package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// Maintain mends what crashes leave behind; call it every few seconds, from any number of processes (one at a time
// does the work). It starts a relay where none beats, gives jobs whose process died back, at once and by the
// database's clock, and sees to it that each unsettled hold has a live job or a letter.
func (e *Engine) Maintain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// Each in a transaction of its own: what one cannot mend must not keep the others from their work.
	var errs []error
	var back []rescued
	for _, step := range []struct {
		name string
		do   func(context.Context, pgx.Tx) error
	}{
		{"start the relay", e.startRelay},
		{"rescue", func(ctx context.Context, tx pgx.Tx) (err error) {
			back, err = e.rescue(ctx, tx)
			return err
		}},
		{"reconcile", e.reconcile},
		{"end backfills", e.endBackfills},
		{"analyze jobs", e.analyzeJobs},
	} {
		err := e.inTx(ctx, func(tx pgx.Tx) error {
			if ok, err := e.q.MaintainLock(ctx, e.db(tx)); err != nil || !ok {
				return err
			}
			return step.do(ctx, tx)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("outbox: maintain: %s: %w", step.name, err))
		} else {
			e.endRescued(back)
		}
		back = nil
	}
	return errors.Join(errs...)
}

// MakePartitions makes the partitions of processed_events that the coming weeks need. Call it daily or more often.
func (e *Engine) MakePartitions(ctx context.Context) error {
	err := e.inTx(ctx, func(tx pgx.Tx) error {
		return e.q.RelayMakeProcessedPartitions(ctx, e.db(tx), 8)
	})
	if err != nil {
		return fmt.Errorf("outbox: make partitions: %w", err)
	}
	return nil
}

// endBackfills notes which runs are through: their lanes end one by one, and none of them sees the others.
func (e *Engine) endBackfills(ctx context.Context, tx pgx.Tx) error {
	ended, err := e.q.RunsEnd(ctx, e.db(tx))
	for _, r := range ended {
		e.log.Info("backfill done", "consumer", r.Consumer, "backfill", r.ID)
	}
	return err
}

// analyzeJobs keeps River's plans in proportion. Autovacuum does so too, in time; until then each look for a few jobs would read all of
// what a burst of failing events has piled up.
func (e *Engine) analyzeJobs(ctx context.Context, tx pgx.Tx) error {
	db := e.db(tx)
	outgrown, err := e.q.JobsOutgrown(ctx, db, outboxdb.Prefix(string(e.schema))+"river_job")
	if err != nil || !outgrown {
		return err
	}
	return e.q.JobsAnalyze(ctx, db)
}

func (e *Engine) startRelay(ctx context.Context, tx pgx.Tx) error {
	db := e.db(tx)
	alive, err := e.q.RelayJobAlive(ctx, db, RelayDeadAfter.Seconds())
	if err != nil || alive {
		return err
	}
	if err := e.q.RelayJobsBury(ctx, db); err != nil {
		return err
	}
	return e.jobs.StartRelay(ctx, tx)
}

// rescued is an attempt whose job was given back.
type rescued struct {
	outboxdb.DeliverAttemptsRow
	free, dead bool
}

var errProcessDied = errors.New("the process died, or hung, in this attempt")

// rescue gives back deliver jobs that have run longer than their timeout allows: their process died, or hangs, and
// then the new token fences it off. It returns the attempts that are over with that.
func (e *Engine) rescue(ctx context.Context, tx pgx.Tx) ([]rescued, error) {
	db := e.db(tx)
	var arg outboxdb.DeliverStuckParams
	for _, c := range e.Consumers() {
		arg.Consumers = append(arg.Consumers, c.Name)
		arg.Timeouts = append(arg.Timeouts, (c.Timeout + 10*time.Second).Seconds())
	}
	stuck, err := e.q.DeliverStuck(ctx, db, arg)
	if err != nil || len(stuck) == 0 {
		return nil, err
	}
	failpoint.At(failpoint.RescueBefore)
	attempts, err := e.attemptsOf(ctx, db, stuck)
	if err != nil {
		return nil, err
	}
	for i, s := range stuck {
		free := s.Rescues < deliverRescues
		discard := !free && s.Attempt >= s.MaxAttempts
		attempts[i].free, attempts[i].dead = free, discard
		if err := e.logAttempt(ctx, db, s.Consumer, s.EventID, s.Attempts, "rescued", errProcessDied); err != nil {
			return nil, err
		}
		// The job before the hold: a discarded one fires the trigger that buries the hold.
		if err := e.q.DeliverRescue(ctx, db, outboxdb.DeliverRescueParams{ID: s.ID, Discard: discard, Free: free}); err != nil {
			return nil, err
		}
		if !discard {
			if err := e.q.HoldRescue(ctx, db, outboxdb.HoldRescueParams{Consumer: s.Consumer, EventID: s.EventID, Free: free}); err != nil {
				return nil, err
			}
		}
	}
	failpoint.At(failpoint.RescueAfter)
	return attempts, nil
}

// attemptsOf reads whose attempts it is that jobs are stuck in. Once they are given back, nothing tells their tokens any more.
func (e *Engine) attemptsOf(ctx context.Context, db outboxdb.DBTX, stuck []outboxdb.DeliverStuckRow) ([]rescued, error) {
	jobs := make([]int64, len(stuck))
	for i, s := range stuck {
		jobs[i] = s.ID
	}
	rows, err := e.q.DeliverAttempts(ctx, db, jobs)
	if err != nil {
		return nil, err
	}
	byJob := make(map[int64]outboxdb.DeliverAttemptsRow, len(rows))
	for _, r := range rows {
		byJob[r.JobID] = r
	}
	all := make([]rescued, len(stuck))
	for i, s := range stuck {
		if row, ok := byJob[s.ID]; ok {
			all[i].DeliverAttemptsRow = row
		} else { // the log lacks its event
			all[i].DeliverAttemptsRow = outboxdb.DeliverAttemptsRow{Consumer: s.Consumer, EventID: s.EventID, Attempts: s.Attempts}
		}
	}
	return all, nil
}

// reconcile finds unsettled holds that nobody works on: their job ended and the trigger missed it, or the job is gone.
func (e *Engine) reconcile(ctx context.Context, tx pgx.Tx) error {
	db := e.db(tx)
	rows, err := e.q.HoldsWithoutJob(ctx, db)
	if err != nil || len(rows) == 0 {
		return err
	}
	failpoint.At(failpoint.ReconcileBefore)
	for _, h := range rows {
		c, buried := e.consumer(h.Consumer), h.JobState == "discarded" || h.JobState == "cancelled"
		if c == nil && !buried && !h.Long {
			continue // how many attempts it has left, a process that runs the consumer knows
		}
		e.log.WarnContext(e.inTrace(ctx, h.Traceparent), "hold without a live job", "consumer", h.Consumer, "event_id", h.EventID,
			"correlation_id", h.CorrelationID, "job_state", h.JobState)
		if buried {
			job := int64(0)
			if h.JobID != nil {
				job = *h.JobID
			}
			if err := e.q.HoldBury(ctx, db, outboxdb.HoldBuryParams{
				Consumer: h.Consumer, EventIds: []uuid.UUID{h.EventID}, JobIds: []int64{job},
			}); err != nil {
				return err
			}
			continue
		}
		limit := e.cfg.MaxAttempts
		if c != nil {
			limit = e.maxAttempts(c)
		}
		ids, err := e.jobs.Deliver(ctx, tx, []Delivery{{
			Consumer: h.Consumer, EventID: h.EventID, CorrelationID: h.CorrelationID,
			MaxAttempts: max(1, limit-int(h.Attempts)),
		}})
		var live *ConflictError
		if errors.As(err, &live) && live.JobID != 0 {
			ids = []int64{live.JobID} // it has a job after all: the hold only did not know
		} else if err != nil {
			return err
		}
		if _, err := e.q.HoldSetJob(ctx, db, outboxdb.HoldSetJobParams{
			JobID: &ids[0], Consumer: h.Consumer, EventID: h.EventID, OldJobID: h.JobID,
		}); err != nil {
			return err
		}
	}
	failpoint.At(failpoint.ReconcileAfter)
	return nil
}
