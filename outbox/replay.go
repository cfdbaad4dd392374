package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// Replay sends the event of a dead letter to its consumer again: a new job with the same event id and ReplayAttempts
// attempts. With data, the consumer gets that in place of the event's own, from now on, which takes a reason; the log keeps
// the original. What waits behind the event goes on when the replay succeeds; when it fails, the letter is dead again,
// with its whole history.
//
// A letter that is not dead is a *ConflictError, and so is one whose event has an unfinished job.
//
// An event that its consumer skipped is held anew, so that what comes now of its key waits for it. When later events of
// the key were applied already, the replay is refused with a *ConflictError that names them, unless it is forced.
// While another event of the key is held, it is refused in any case: settle that one first.
func (o *Operator) Replay(ctx context.Context, id int64, data json.RawMessage, by Action) (jobID int64, err error) {
	r, err := o.ReplayEdited(ctx, id, data, by)
	if err != nil {
		return 0, err
	}
	return r.JobID, nil
}

// ReplayEdited is Replay, and says what the data, where it is given, has changed. Data that the consumer's code would not take as it is,
// for a field that it does not know or a value of another type, is refused with an *InvalidDataError, unless that is forced, with a reason.
// Where the operator does not have the code (WithConsumers), that cannot be told.
func (o *Operator) ReplayEdited(ctx context.Context, id int64, data json.RawMessage, by Action) (r *Replayed, err error) {
	if data != nil {
		if reason := refusedData(data); reason != "" {
			return nil, &InvalidEventError{"data", reason}
		}
	}
	if (data != nil || by.Force) && strings.TrimSpace(by.Reason) == "" {
		return nil, ErrReasonRequired
	}
	var span *eventTrace
	began := time.Now()
	err = o.inTx(ctx, func(tx pgx.Tx, db outboxdb.DBTX) error {
		l, err := o.q.LetterGet(ctx, db, id)
		if err != nil {
			return notFound("dead letter", err)
		}
		if span, err = o.startReplay(ctx, db, l, began); err != nil {
			return err
		}
		if r, err = o.replay(ctx, tx, db, l, data, by, map[string]any{}); err != nil {
			return err
		}
		failpoint.At(failpoint.ReplayBefore)
		return nil
	})
	if err != nil {
		span.end("refused", err)
		return nil, err
	}
	failpoint.At(failpoint.ReplayAfter)
	span.end("replaying", nil)
	return r, nil
}

// replay is ReplayEdited in a transaction; detail is what the audit is to keep beside the rest.
func (o *Operator) replay(ctx context.Context, tx pgx.Tx, db outboxdb.DBTX, l outboxdb.LetterGetRow, data json.RawMessage, by Action, detail map[string]any) (*Replayed, error) {
	if strings.Contains(l.Consumer, removedMark) {
		return nil, conflictf("dead letter %d is one of a consumer that was removed, and nobody would take it", l.ID)
	}
	r := &Replayed{}
	var e edited
	if data != nil {
		var err error
		if e, err = o.edit(ctx, db, l, data); err != nil {
			return nil, err
		}
		if len(e.problems) > 0 && !by.Force {
			return nil, &InvalidDataError{e.problems}
		}
		r.Diff, r.Checked = e.diff, e.checked && len(e.problems) == 0
		detail["checked"] = r.Checked
	}
	if l.Skipped {
		// Only who has the lane may hold a key. As in a drain, the lane comes before the job.
		if err := o.q.LaneLock(ctx, db, outboxdb.LaneLockParams{Lane: int32(l.Lane), Consumer: l.Consumer}); err != nil {
			return nil, fmt.Errorf("outbox: wait for the lane of dead letter %d: %w", l.ID, err)
		}
	}
	// Lock order: the job, the hold, the letter. The hold tells what is true; the letter above was a way to find it.
	ids, err := o.jobs.Deliver(ctx, tx, []Delivery{{
		Consumer: l.Consumer, EventID: l.EventID, CorrelationID: l.CorrelationID, MaxAttempts: ReplayAttempts,
	}})
	if err != nil {
		return nil, err
	}
	r.JobID = ids[0]
	detail["job_id"], detail["edited"] = r.JobID, data != nil
	if l.Skipped {
		passed, err := o.holdAgain(ctx, db, l, r.JobID, by)
		if err != nil {
			return nil, err
		}
		detail["forced"], detail["newer"] = by.Force, passed
	} else if err := o.reviveHold(ctx, db, l, r.JobID); err != nil {
		return nil, err
	}
	if data != nil {
		if err := o.q.EditPut(ctx, db, outboxdb.EditPutParams{
			Consumer: l.Consumer, EventID: l.EventID, Data: data, Diff: e.encoded, Actor: by.Actor, Reason: by.Reason,
		}); err != nil {
			return nil, err
		}
	}
	if err := o.q.LetterSetState(ctx, db, outboxdb.LetterSetStateParams{ID: l.ID, State: "replaying", JobID: &r.JobID}); err != nil {
		return nil, err
	}
	return r, o.record(ctx, db, l, "replay", by, detail)
}

// reviveHold gives a dead hold the job of the replay.
func (o *Operator) reviveHold(ctx context.Context, db outboxdb.DBTX, l outboxdb.LetterGetRow, jobID int64) error {
	old, err := o.lockDead(ctx, db, l)
	if err != nil {
		return err
	}
	_, err = o.q.HoldSetJob(ctx, db, outboxdb.HoldSetJobParams{
		JobID: &jobID, Consumer: l.Consumer, EventID: l.EventID, OldJobID: old,
	})
	return err
}

// holdAgain holds an event that was skipped, under its lane's lock, and returns the later events of its key that were
// applied before it.
func (o *Operator) holdAgain(ctx context.Context, db outboxdb.DBTX, l outboxdb.LetterGetRow, jobID int64, by Action) ([]NewerEvent, error) {
	held, err := o.q.HoldOfKey(ctx, db, outboxdb.HoldOfKeyParams{Consumer: l.Consumer, EventID: l.EventID, Key: l.Key})
	switch {
	case err == nil:
		return nil, conflictf("the key of dead letter %d is held by event %s: that has to be settled first", l.ID, held)
	case !errors.Is(err, pgx.ErrNoRows):
		return nil, err
	}
	if err := o.q.HoldInsert(ctx, db, outboxdb.HoldInsertParams{
		Consumer: l.Consumer, Lane: l.Lane, EventIds: []uuid.UUID{l.EventID}, Keys: []string{l.Key}, Positions: []int64{l.Pos},
		Reasons: []string{"failed"}, Attempts: []int32{l.Attempts}, JobIds: []int64{jobID}, Runs: []int64{l.Run},
	}); err != nil {
		return nil, err
	}
	now, err := o.lockLetter(ctx, db, l)
	if err != nil {
		return nil, err
	} else if !now.Skipped {
		return nil, conflictf("dead letter %d changed in this moment", l.ID)
	}
	rows, err := o.q.EventsAppliedAfter(ctx, db, outboxdb.EventsAppliedAfterParams{
		Consumer: l.Consumer, Lane: l.Lane, Pos: l.Pos, Key: l.Key, Most: MaxNewer,
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: later events of the key: %w", err)
	}
	newer := make([]NewerEvent, len(rows))
	for i, r := range rows {
		newer[i] = NewerEvent{r.ID, r.Type, r.Pos}
	}
	if len(newer) > 0 && !by.Force {
		return nil, &ConflictError{
			Reason: fmt.Sprintf("later events of the key of dead letter %d were applied already, from event %s at position %d on: "+
				"a replay is out of order and must be forced, with a reason", l.ID, newer[0].EventID, newer[0].Position),
			Newer: newer,
		}
	}
	return newer, nil
}

// Dismissal says what was given up, and what goes on without it.
type Dismissal struct {
	LetterSummary
	// Released are the events that waited behind it, the first of them, and ReleasedCount how many there are.
	Released      []WaitingEvent `json:"released"`
	ReleasedCount int            `json:"released_count"`
}

// Dismiss gives up the event of a dead letter for its consumer, which takes a reason: what waits behind it goes on without
// it. A letter that is not dead is a *ConflictError, and so is one of which nobody knows what was done outside (MayHaveHappened), unless that is
// forced.
func (o *Operator) Dismiss(ctx context.Context, id int64, by Action) (*Dismissal, error) {
	if strings.TrimSpace(by.Reason) == "" {
		return nil, ErrReasonRequired
	}
	var d *Dismissal
	err := o.inTx(ctx, func(tx pgx.Tx, db outboxdb.DBTX) error {
		l, err := o.q.LetterGet(ctx, db, id)
		if err != nil {
			return notFound("dead letter", err)
		}
		if l.Skipped {
			if _, err := o.lockLetter(ctx, db, l); err != nil {
				return err
			}
		} else if _, err := o.lockDead(ctx, db, l); err != nil {
			return err
		}
		detail := map[string]any{}
		if err := o.unknown(ctx, tx, l, by, detail); err != nil {
			return err
		}
		letter, err := o.letter(ctx, db, id)
		if err != nil {
			return err
		}
		d = &Dismissal{letter.LetterSummary, letter.Waiting, letter.WaitingCount}
		d.State = "dismissed"
		outcome := d.State
		if _, err := o.q.HoldSettle(ctx, db, outboxdb.HoldSettleParams{Outcome: &outcome, Consumer: l.Consumer, EventID: l.EventID}); err != nil {
			return err
		}
		if err := o.q.LetterSetState(ctx, db, outboxdb.LetterSetStateParams{ID: id, State: d.State}); err != nil {
			return err
		}
		detail["released"] = d.ReleasedCount
		if err := o.record(ctx, db, l, "dismiss", by, detail); err != nil {
			return err
		}
		failpoint.At(failpoint.DismissBefore)
		return nil
	})
	if err != nil {
		return nil, err
	}
	failpoint.At(failpoint.DismissAfter)
	wakeSettled()
	return d, nil
}

// unknown refuses to give up an event of which nobody knows what was done outside; by force that goes into the audit.
func (o *Operator) unknown(ctx context.Context, tx pgx.Tx, l outboxdb.LetterGetRow, by Action, detail map[string]any) error {
	if o.reg == nil {
		return nil
	}
	c := o.reg.Consumer(l.Consumer)
	if c == nil || c.happened == nil {
		return nil
	}
	what, err := c.happened(ctx, tx, l.EventID)
	switch {
	case err != nil:
		return fmt.Errorf("outbox: ask what may have happened for dead letter %d: %w", l.ID, err)
	case what == "":
		return nil
	case !by.Force:
		return &ConflictError{
			Reason: fmt.Sprintf("outcome unknown: %s; a replay of dead letter %d finds out, and a dismissal must be forced", what, l.ID), OutcomeUnknown: true,
		}
	}
	detail["forced"], detail["outcome_unknown"] = true, what
	return nil
}

// lockDead locks the hold and the letter, and refuses a letter that is not dead any more.
func (o *Operator) lockDead(ctx context.Context, db outboxdb.DBTX, l outboxdb.LetterGetRow) (jobID *int64, err error) {
	jobID, holdErr := o.q.HoldLockDead(ctx, db, outboxdb.HoldLockDeadParams{Consumer: l.Consumer, EventID: l.EventID})
	if holdErr != nil && !errors.Is(holdErr, pgx.ErrNoRows) {
		return nil, holdErr
	}
	if _, err := o.lockLetter(ctx, db, l); err != nil {
		return nil, err
	}
	if holdErr != nil {
		return nil, conflictf("dead letter %d has no dead hold: its event is being settled", l.ID)
	}
	return jobID, nil
}

// lockLetter locks the letter and refuses one that is not dead any more.
func (o *Operator) lockLetter(ctx context.Context, db outboxdb.DBTX, l outboxdb.LetterGetRow) (outboxdb.LetterLockRow, error) {
	now, err := o.q.LetterLock(ctx, db, outboxdb.LetterLockParams{Consumer: l.Consumer, EventID: l.EventID})
	switch {
	case err != nil:
		return now, notFound("dead letter", err)
	case now.State != "dead":
		return now, conflictf("dead letter %d is %s", l.ID, now.State)
	}
	return now, nil
}
