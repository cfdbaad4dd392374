package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// operationsIdle is how often somebody asks for operations where there is none (what was begun in the same process is known at once),
	// operationsBusy where one waits for what it has sent, operationsFailed where it could not be asked.
	operationsIdle   = 3 * time.Second
	operationsFailed = time.Second
	operationsBusy   = 50 * time.Millisecond
	// operationInFlight is how many letters of an operation are in flight at most: so many are sent at most before it is known that they fail.
	operationInFlight = 100
	// operationMisses is how many letters of a group fail in a row before it is stopped.
	operationMisses = 20
)

// operationsBegun tells the loops of this process that an operation was begun.
var operationsBegun = hub{listeners: map[*listener]struct{}{}}

// RunOperations takes operations further until stop is closed or ctx ends. Any number of processes may do so at a time. It needs no River job:
// what keeps such a job alive would be as much again, where a step is a transaction of its own and any process may make the next one.
func (e *Engine) RunOperations(ctx context.Context, stop <-chan struct{}) {
	begun, unlisten := operationsBegun.listen()
	defer unlisten()
	for {
		wait, err := e.Operate(ctx)
		if err != nil {
			if ctx.Err() == nil {
				e.log.Error("operations", "error", err)
			}
			wait = max(wait, operationsFailed)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-stop:
			timer.Stop()
			return
		case <-begun.C:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Operate takes each operation that is under way a step further, and returns how long to wait before it is called again. A step is a
// transaction: what has become of the letters that were sent is noted, and the next one is sent, if it is time. So nothing is lost with a
// process: call it from any number of them, of which one at a time steps an operation.
func (e *Engine) Operate(ctx context.Context) (wait time.Duration, err error) {
	ids, err := e.q.OperationsOpen(ctx, e.db(e.pool))
	if err != nil {
		return operationsIdle, fmt.Errorf("outbox: ask for operations: %w", err)
	}
	wait = operationsIdle
	var errs []error
	for _, id := range ids {
		s := &operationStep{Operator: e.operator, id: id, wait: operationsBusy, groups: map[int32]*operationGroup{}}
		if err := s.inTx(ctx, func(tx pgx.Tx, db outboxdb.DBTX) error { return s.step(ctx, tx, db) }); err != nil {
			errs = append(errs, fmt.Errorf("outbox: operation %d: %w", id, err))
			continue
		}
		failpoint.At(failpoint.OperationStepAfter)
		wait = min(wait, s.wait)
	}
	return wait, errors.Join(errs...)
}

// operationStep is a step of an operation, in a transaction that has its row.
type operationStep struct {
	*Operator
	id       int64
	op       outboxdb.OperationStepRow
	inFlight int64
	groups   map[int32]*operationGroup
	wait     time.Duration
}

type operationGroup struct {
	outboxdb.OperationGroupStateRow
	shape *string // of the error that stopped it
}

func (s *operationStep) step(ctx context.Context, tx pgx.Tx, db outboxdb.DBTX) (err error) {
	s.op, err = s.q.OperationStep(ctx, db, s.id)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil // it has ended, or another process steps it
	case err != nil:
		return err
	}
	if err := s.settle(ctx, db); err != nil {
		return err
	}
	due := time.Duration(s.op.Wait * float64(time.Second))
	switch {
	case s.op.State == "stopped":
		if s.inFlight == 0 {
			return s.end(ctx, db)
		}
		return nil
	case s.inFlight >= operationInFlight:
		return nil
	case due > 0:
		s.wait = min(s.wait, due)
		return nil
	}
	next, err := s.q.OperationNext(ctx, db, s.id)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		if s.inFlight == 0 {
			return s.end(ctx, db)
		}
		return nil
	case err != nil:
		return err
	}
	s.wait = 0
	return s.send(ctx, tx, db, next)
}

// settle notes what has become of the letters in flight.
func (s *operationStep) settle(ctx context.Context, db outboxdb.DBTX) error {
	s.inFlight = s.op.InFlight
	if s.inFlight == 0 {
		return nil
	}
	settled, err := s.q.OperationSettled(ctx, db, s.id)
	if err != nil || len(settled) == 0 {
		return err
	}
	count := outboxdb.OperationCountParams{ID: s.id}
	for _, l := range settled {
		g, err := s.group(ctx, db, l.Grp)
		if err != nil {
			return err
		}
		set := outboxdb.OperationLetterSetParams{Operation: s.id, Letter: l.Letter}
		isCanary := g.State == "canary" && g.Canary != nil && *g.Canary == l.Letter
		switch l.State {
		case "replayed":
			set.State, g.Misses = "succeeded", 0
			count.Succeeded++
			if isCanary {
				g.State = "running"
			}
		case "dead":
			set.State = "failed"
			count.FailedAgain++
			if g.Misses++; g.State != "stopped" && (isCanary || g.Misses >= operationMisses) {
				cause := fmt.Sprintf("letter %d, its canary, failed again: %s", l.Letter, l.Error)
				if !isCanary {
					cause = fmt.Sprintf("%d letters in a row failed again, the last of them %d: %s", g.Misses, l.Letter, l.Error)
				}
				if err := s.stopGroup(ctx, db, g, l.Grp, cause, l.Error); err != nil {
					return err
				}
			}
		default: // somebody has dismissed it, or its consumer is removed
			note := "it was " + l.State + " meanwhile"
			set.State, set.Note = "skipped", &note
			count.Replayed--
			count.Skipped++
			if isCanary {
				g.Canary = nil
			}
		}
		if err := s.q.OperationLetterSet(ctx, db, set); err != nil {
			return err
		}
	}
	for n, g := range s.groups {
		if err := s.q.OperationGroupSet(ctx, db, outboxdb.OperationGroupSetParams{
			State: g.State, Canary: g.Canary, Misses: g.Misses, Error: g.shape, Operation: s.id, N: n,
		}); err != nil {
			return err
		}
	}
	s.inFlight -= int64(len(settled))
	return s.q.OperationCount(ctx, db, count)
}

func (s *operationStep) group(ctx context.Context, db outboxdb.DBTX, n int32) (*operationGroup, error) {
	if g := s.groups[n]; g != nil {
		return g, nil
	}
	row, err := s.q.OperationGroupState(ctx, db, outboxdb.OperationGroupStateParams{Operation: s.id, N: n})
	if err != nil {
		return nil, err
	}
	g := &operationGroup{OperationGroupStateRow: row}
	s.groups[n] = g
	return g, nil
}

// stopGroup sends no further letter of a group. The audit says so: nobody did it.
func (s *operationStep) stopGroup(ctx context.Context, db outboxdb.DBTX, g *operationGroup, n int32, cause, shape string) error {
	g.State, g.shape = "stopped", &shape
	s.log.Warn("operation: a group is stopped", "operation", s.id, "consumer", g.Consumer, "fingerprint", g.Fingerprint, "cause", cause)
	_, err := s.audit(ctx, db, operationTarget(s.id), "stop", Action{Actor: "pgoutbox", Reason: cause}, map[string]any{
		"group": n, "consumer": g.Consumer, "fingerprint": g.Fingerprint,
	})
	return err
}

// send replays a letter. One that does not let itself be replayed is skipped, and what its replay has done so far undone.
func (s *operationStep) send(ctx context.Context, tx pgx.Tx, db outboxdb.DBTX, next outboxdb.OperationNextRow) error {
	set := outboxdb.OperationLetterSetParams{Operation: s.id, Letter: next.Letter}
	count := outboxdb.OperationCountParams{ID: s.id}
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		db := s.schema.on(tx)
		l, err := s.q.LetterGet(ctx, db, next.Letter)
		if err != nil {
			return notFound("dead letter", err)
		}
		_, err = s.replay(ctx, tx, db, l, nil, Action{s.op.Actor, s.op.Reason, s.op.Force}, map[string]any{"operation": s.id})
		return err
	})
	var conflict *ConflictError
	switch {
	case err == nil:
		set.State, count.Replayed = "replaying", 1
		if next.Canary {
			g, err := s.group(ctx, db, next.N)
			if err != nil {
				return err
			}
			if err := s.q.OperationGroupSet(ctx, db, outboxdb.OperationGroupSetParams{
				State: g.State, Canary: &next.Letter, Misses: g.Misses, Operation: s.id, N: next.N,
			}); err != nil {
				return err
			}
		}
	case errors.As(err, &conflict), errors.Is(err, ErrNotFound):
		note := err.Error()
		if conflict != nil {
			note = conflict.Reason
		}
		set.State, set.Note, count.Skipped = "skipped", &note, 1
	default:
		return err
	}
	if err := s.q.OperationLetterSet(ctx, db, set); err != nil {
		return err
	}
	if err := s.q.OperationCount(ctx, db, count); err != nil {
		return err
	}
	failpoint.At(failpoint.OperationStepBefore)
	return nil
}

func (s *operationStep) end(ctx context.Context, db outboxdb.DBTX) error {
	r, err := s.q.OperationEnd(ctx, db, s.id)
	if err != nil {
		return err
	}
	s.log.Info("operation ended", "operation", s.id, "state", r.State, "total", r.Total, "succeeded", r.Succeeded,
		"failed_again", r.FailedAgain, "skipped", r.Skipped)
	return s.q.OperationForget(ctx, db, s.id)
}
