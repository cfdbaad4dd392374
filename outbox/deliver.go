package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// deliverRescues is how often a deliver job whose process died, or whose transaction was lost with the database, is
// tried again without spending an attempt.
const deliverRescues = 3

// recordTime is how long the record of an external handler may take, beyond the attempt's own time. A rescue leaves 10 s.
const recordTime = 8 * time.Second

// errFenced says that this attempt is not the one that counts any more: the event was settled, buried or taken up by a
// later attempt. What the attempt did in its transaction is rolled back.
var errFenced = errors.New("outbox: another attempt took over")

// errPaused says that the consumer is paused. Its queue is as well, but may not have been known when that was asked for.
var errPaused = errors.New("outbox: the consumer is paused")

// RetryLaterError asks for another try of a job that spent no attempt.
type RetryLaterError struct {
	After time.Duration
	Err   error
}

func (e *RetryLaterError) Error() string { return "outbox: try again later: " + e.Err.Error() }
func (e *RetryLaterError) Unwrap() error { return e.Err }

// Deliver makes one attempt at an event that has a job of its own. It returns nil when the event is settled, by this
// attempt or before it, and also when this attempt was fenced off; an error marked Permanent when no further attempt
// makes sense; a *RetryLaterError when the attempt does not count; and any other error for an attempt that failed.
//
// For an external consumer the handler runs between two short transactions and under no lock. The second one records
// what it did only if the hold's token is still the one drawn in the first.
func (e *Engine) Deliver(ctx context.Context, jobID int64, consumer string, eventID uuid.UUID) error {
	c := e.consumer(consumer)
	if c == nil {
		return errUncovered
	}
	d := &attempt{Engine: e, c: c, jobID: jobID, eventID: eventID, began: time.Now()}
	failpoint.At(failpoint.DeliverClaimBefore)
	err := d.claim(ctx)
	switch {
	case errors.Is(err, errFenced):
		return nil
	case errors.Is(err, errPaused):
		return &RetryLaterError{5 * time.Second, err}
	case err != nil:
		return &RetryLaterError{time.Second, err}
	}
	failpoint.At(failpoint.DeliverClaimAfter)
	ctx, cancel := context.WithTimeout(d.startSpan(WithCorrelationID(ctx, d.event.CorrelationID)), c.Timeout)
	defer cancel()
	err = d.attempt(ctx)
	switch {
	case err == nil:
		d.ended(d.outcome, nil)
		if d.appended {
			Wake()
		}
		wakeSettled() // what waited for this event may go
		wakeWaiting(eventID)
		return nil
	case errors.Is(err, errFenced):
		d.ended("fenced", nil)
		return nil
	}
	return d.failed(err)
}

// attempt is one run of Deliver.
type attempt struct {
	*Engine
	c       *Consumer
	jobID   int64
	eventID uuid.UUID
	began   time.Time

	item      *item
	event     *stored
	dedupe    string // the name under which it is deduplicated
	processed bool
	token     uuid.UUID
	n         int32 // the how-manieth attempt this is
	recording bool  // the outside was called, and it is in the database that the attempt is now
	appended  bool  // the handler appended events
	outcome   string
	trace     *eventTrace
}

// claim begins the attempt: a new token fences off every earlier one.
func (d *attempt) claim(ctx context.Context) error {
	var turn outboxdb.DeliverTurnRow
	var held outboxdb.HoldClaimRow
	var events []item
	tx, err := d.pipeline(ctx, func(b *pgx.Batch) {
		// An attempt whose token is undone by a crash of the server is fenced off, and made again.
		b.Queue(outboxdb.EngineCommitsLater)
		b.Queue(d.schema.sql(outboxdb.JobLockRunning), d.jobID)
		queueRow(b, &turn, d.schema.sql(outboxdb.DeliverTurn), d.jobID, d.c.Name)
		b.Queue(d.schema.sql(outboxdb.HoldClaim), d.c.Name, d.eventID, d.jobID).QueryRow(func(row pgx.Row) error {
			if err := row.Scan(&held.Token, &held.Attempts); !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			return nil
		})
		b.Queue(d.schema.sql(outboxdb.EventForDelivery), d.c.Name, d.eventID).Query(func(rows pgx.Rows) (err error) {
			events, _, err = scanItems(rows, 1)
			return err
		})
		if d.c.Kind == KindExternal { // the others find out in time
			b.Queue(d.schema.sql(outboxdb.ProcessedExists), d.eventID, d.c.Name).QueryRow(func(row pgx.Row) error {
				return row.Scan(&d.processed)
			})
		}
		b.Queue("commit")
	})
	if err != nil {
		return err
	}
	tx.commits()
	tx.end()
	switch {
	case turn.Paused:
		return errPaused
	case !turn.May || held.Token == uuid.Nil:
		return errFenced
	case len(events) == 0:
		return fmt.Errorf("read event %s: %w", d.eventID, pgx.ErrNoRows)
	}
	d.token, d.n = held.Token, held.Attempts
	d.item, d.event, d.dedupe = &events[0], events[0].event, dedupe(turn.Dedupe, events[0].run)
	return nil
}

func fencedIfNone(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return errFenced
	}
	return err
}

// attempt runs the handler and settles the event.
func (d *attempt) attempt(ctx context.Context) error {
	if d.processed {
		return d.settle(ctx, "duplicate", nil)
	}
	if d.c.Kind == KindTx {
		return d.settle(ctx, "applied", func(ctx context.Context, tx pgx.Tx) error {
			failpoint.At(failpoint.DeliverHandlerBefore)
			err := guard(func() error { return d.c.tx(ctx, tx, d.item, int(d.n)) })
			failpoint.At(failpoint.DeliverHandlerAfter)
			return err
		})
	}
	var rec record
	failpoint.At(failpoint.DeliverHandlerBefore)
	err := guard(func() (err error) {
		rec, err = d.c.external(withDelivery(ctx, d.c, d.item, nil), d.item, int(d.n))
		return err
	})
	failpoint.At(failpoint.DeliverHandlerAfter)
	if err != nil {
		return err
	}
	if rec == nil {
		rec = func(context.Context, pgx.Tx) error { return nil }
	}
	// What was done outside is worth recording even if it took all the attempt's time: the rescue leaves some more.
	d.recording = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	return d.settle(ctx, "applied", func(ctx context.Context, tx pgx.Tx) error {
		return guard(func() error { return rec(ctx, tx) })
	})
}

// settle does the work, the dedupe row, the end of the hold and of the job in one transaction. Lock order: the job,
// the key, the hold, the letter.
func (d *attempt) settle(ctx context.Context, outcome string, work record) error {
	fenced, fresh := true, false
	limit := max(10*time.Second, d.c.Timeout.Truncate(time.Second))
	tx, err := d.pipelineFor(ctx, limit, limit, func(b *pgx.Batch) {
		db := d.queued(b)
		// The token below is what counts, and not the job: whatever buries or replays an event redraws it.
		_ = d.q.JobLock(ctx, db, d.jobID)
		_ = d.q.OutboxLockKeys(ctx, db, []string{d.event.Key})
		b.Queue(d.schema.sql(outboxdb.HoldLock), d.c.Name, d.eventID, d.token).Query(func(rows pgx.Rows) error {
			fenced = !rows.Next()
			return rows.Err()
		})
		if work != nil {
			b.Queue(d.schema.sql(outboxdb.ProcessedClaim), d.dedupe, d.eventID).Exec(func(tag pgconn.CommandTag) error {
				fresh = tag.RowsAffected() > 0
				return nil
			})
		}
		b.Queue(outboxdb.EngineLends)
	})
	if err != nil {
		return err
	}
	defer tx.end()
	if fenced {
		return errFenced
	}
	ht := newHandlerTx(tx.Tx)
	switch {
	case work != nil && !fresh:
		outcome = "duplicate"
	case work != nil:
		failpoint.At(failpoint.DeliverDedupe)
		if err := d.work(ctx, ht, work); err != nil {
			return err
		}
	}
	db := d.queued(ht.batch)
	_ = d.q.EngineTakesBack(ctx, db)
	_, _ = d.q.HoldSettle(ctx, db, outboxdb.HoldSettleParams{Outcome: &outcome, Consumer: d.c.Name, EventID: d.eventID})
	_ = d.q.LetterReplayed(ctx, db, outboxdb.LetterReplayedParams{Consumer: d.c.Name, EventID: d.eventID})
	_ = d.q.DeliverJobDone(ctx, db, d.jobID)
	if d.n != 1 || outcome != "applied" { // a clean first try is not logged
		_ = d.logAttempt(ctx, db, d.c.Name, d.eventID, d.n, outcome, nil)
	}
	if len(ht.appended) > 0 {
		d.schema.queueWrite(ht.batch, ht.appended)
	}
	ht.batch.Queue("commit")
	failpoint.At(failpoint.DeliverCommitBefore)
	if err := ht.flush(ctx); err != nil {
		return err
	}
	tx.commits()
	failpoint.At(failpoint.DeliverCommitAfter)
	d.outcome, d.appended = outcome, len(ht.appended) > 0
	return nil
}

// work runs the handler, which is the one to do so: the dedupe row is in the transaction.
func (d *attempt) work(ctx context.Context, ht *handlerTx, work record) error {
	if err := work(withDelivery(ctx, d.c, d.item, ht), ht); err != nil {
		return err
	}
	if ht.waits() {
		return ht.flush(ctx)
	}
	return nil
}

// failed records the attempt's error. It uses a context of its own: the attempt's may be what failed it.
func (d *attempt) failed(cause error) error {
	ctx, cancel := context.WithTimeout(d.trace.in(context.Background()), 10*time.Second)
	defer cancel()
	// What broke in the database is no failed event: the attempt is given back, a few times.
	free := transient(cause) && (d.c.Kind == KindTx || d.recording)
	var counted bool
	failpoint.At(failpoint.DeliverFailBefore)
	err := d.inTx(ctx, func(tx pgx.Tx) error {
		db := d.db(tx)
		if _, err := d.q.JobLockRunning(ctx, db, d.jobID); err != nil {
			return fencedIfNone(err)
		}
		h, err := d.q.HoldLock(ctx, db, outboxdb.HoldLockParams{Consumer: d.c.Name, EventID: d.eventID, Token: d.token})
		if err != nil {
			return fencedIfNone(err)
		}
		if free = free && h.Rescues < deliverRescues; free {
			return d.q.HoldRescue(ctx, db, outboxdb.HoldRescueParams{Consumer: d.c.Name, EventID: d.eventID, Free: true})
		}
		counted = true
		return d.logAttempt(ctx, db, d.c.Name, d.eventID, d.n, "failed", cause)
	})
	switch {
	case errors.Is(err, errFenced):
		d.ended("fenced", cause)
		return nil
	case err != nil:
		// Nothing is recorded: the job stays as it is, or fails, and the rescue or River's retry goes on.
		d.trace.end("unrecorded", cause)
		d.logEnded(ctx, slog.LevelError, "unrecorded", cause, "unrecorded", scrub(err.Error()))
		return &RetryLaterError{time.Second, cause}
	}
	failpoint.At(failpoint.DeliverFailAfter)
	if !counted {
		d.ended("free", cause)
		return &RetryLaterError{time.Second, cause}
	}
	d.ended("failed", cause)
	return &scrubbedError{cause}
}

// scrubbedError says what cause says, in text that PostgreSQL can store.
type scrubbedError struct{ cause error }

func (e *scrubbedError) Error() string { return scrub(e.cause.Error()) }
func (e *scrubbedError) Unwrap() error { return e.cause }
