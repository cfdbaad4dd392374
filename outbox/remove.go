package outbox

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// Removal says what a consumer took with it.
type Removal struct {
	Consumer string `json:"consumer"`
	// Lag are events that it had not come to, InFlight and Waiting events that it had not finished.
	Lag      int64 `json:"lag"`
	InFlight int64 `json:"in_flight"`
	Waiting  int64 `json:"waiting"`
	// Dead are dead letters that were dismissed with it. All its letters are kept, under the consumer LettersOf.
	Dead      int64  `json:"dead"`
	LettersOf string `json:"letters_of"`
}

// removedMark stands in the name under which the letters of a consumer that was removed are kept; no consumer's has it.
const removedMark = "@removed-"

// Remove makes the database forget a consumer: its cursors and subscriptions, and what of it is in flight, held or waiting.
// Its letters stay readable, what it did stays done, and the events stay in the log. No attempt of it is recorded any more; a
// call to the outside that is under way may still go out.
//
// Take the consumer out of the code first: a program that still has it leaves it alone for a week, and registers it anew then.
// A consumer of the same name starts from scratch: it shares no dedupe with the old one.
//
// One that has anything left to do is a *ConflictError, unless the removal is forced, with a reason. One that Create made is given up by
// the processes that run it within seconds.
func (o *Operator) Remove(ctx context.Context, consumer string, by Action, also ...Also) (*Removal, error) {
	if by.Force && strings.TrimSpace(by.Reason) == "" {
		return nil, ErrReasonRequired
	}
	r := &Removal{Consumer: consumer}
	err := o.inTx(ctx, func(tx pgx.Tx, db outboxdb.DBTX) error {
		if err := o.q.ConsumerRegisterLock(ctx, db); err != nil {
			return err
		}
		if err := lockConsumer(ctx, tx, o.q, db, consumer); err != nil {
			return err
		}
		id, err := o.q.ConsumerID(ctx, db, consumer)
		if err != nil {
			return notFound("consumer", err)
		}
		r.LettersOf = fmt.Sprintf("%s%s%d", consumer, removedMark, id)
		if err := o.leftovers(ctx, db, r, by.Force); err != nil {
			return err
		}
		if err := o.jobs.SetPaused(ctx, tx, consumer, false); err != nil {
			return err
		}
		if _, err := o.q.ConsumerRemoveHolds(ctx, db, consumer); err != nil {
			return err
		}
		if _, err := o.q.ConsumerRemoveWaiting(ctx, db, consumer); err != nil {
			return err
		}
		if err := o.q.ConsumerJobsCancel(ctx, db, []string{DrainQueue(consumer), DeliverQueue(consumer)}); err != nil {
			return err
		}
		if _, err := o.q.ConsumerRemoveLetters(ctx, db, outboxdb.ConsumerRemoveLettersParams{KeptAs: r.LettersOf, Consumer: consumer}); err != nil {
			return err
		}
		if err := o.q.ConsumerRemoveEdits(ctx, db, consumer); err != nil {
			return err
		}
		if _, err := o.q.ConsumerRemove(ctx, db, consumer); err != nil {
			return err
		}
		if err := o.q.ConsumerRetire(ctx, db, outboxdb.ConsumerRetireParams{Name: consumer}); err != nil {
			return err
		}
		return o.auditConsumer(ctx, tx, consumer, "remove", by, r, also...)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// leftovers finds what the consumer has not done, and refuses to go on with it unless forced.
func (o *Operator) leftovers(ctx context.Context, db outboxdb.DBTX, r *Removal, force bool) error {
	lag, err := o.q.ConsumerLag(ctx, db, r.Consumer)
	if err != nil {
		return err
	}
	holds, err := o.q.ConsumerHolds(ctx, db, r.Consumer)
	if err != nil {
		return err
	}
	r.Lag, r.InFlight, r.Waiting, r.Dead = lag.Events, holds.InFlight, holds.Waiting, holds.Dead
	if r.Lag+r.InFlight+r.Waiting+r.Dead > 0 && !force {
		return conflictf("consumer %s is not done: %d events ahead of it, %d in flight, %d waiting, %d dead; its removal must be forced, with a reason",
			r.Consumer, r.Lag, r.InFlight, r.Waiting, r.Dead)
	}
	return nil
}

// Unsubscribe ends a consumer's subscription, for code that does not handle those events any more: as long as the database has
// it, such code is left out (Engine.Uncovered). Events that the consumer has not come to are not delivered to it then.
// A pattern that is not subscribed is ErrNotFound; the last one is a *ConflictError (Remove the consumer instead), and so is one
// of whose events some are held or waiting: settle those first.
func (o *Operator) Unsubscribe(ctx context.Context, consumer, pattern string, by Action) error {
	return o.inTx(ctx, func(tx pgx.Tx, db outboxdb.DBTX) error {
		if err := o.q.ConsumerRegisterLock(ctx, db); err != nil {
			return err
		}
		if err := lockConsumer(ctx, tx, o.q, db, consumer); err != nil {
			return err
		}
		all, err := subscriptions(ctx, o.q, db)
		if err != nil {
			return err
		}
		have := all[consumer]
		at := slices.Index(have, pattern)
		switch {
		case at < 0:
			return fmt.Errorf("%w: consumer %s has no subscription to %s", ErrNotFound, consumer, pattern)
		case len(have) == 1:
			return conflictf("consumer %s subscribes to nothing else than %s: remove it instead", consumer, pattern)
		}
		if err := o.unsubscribe(ctx, db, consumer, []string{pattern}, slices.Delete(have, at, at+1)); err != nil {
			return err
		}
		return o.auditConsumer(ctx, tx, consumer, "unsubscribe", by, map[string]any{"pattern": pattern})
	})
}

// unsubscribe ends subscriptions in a transaction that has the consumer's lanes, unless something is held or waiting that no other one takes.
func (o *Operator) unsubscribe(ctx context.Context, db outboxdb.DBTX, consumer string, ended, others []string) error {
	types, err := o.q.ConsumerUnsettledTypes(ctx, db, consumer)
	if err != nil {
		return err
	}
	for _, t := range types {
		takes := func(p string) bool { return matches(p, t) }
		if slices.ContainsFunc(ended, takes) && !slices.ContainsFunc(others, takes) {
			return conflictf("consumer %s holds events of type %s: they have to be settled first", consumer, t)
		}
	}
	for _, p := range ended {
		if err := o.q.ConsumerUnsubscribe(ctx, db, outboxdb.ConsumerUnsubscribeParams{Consumer: consumer, Pattern: p}); err != nil {
			return err
		}
	}
	return nil
}

// auditConsumer leaves a line in the audit, and does what is to be done with it.
func (o *Operator) auditConsumer(ctx context.Context, tx pgx.Tx, consumer, action string, by Action, detail any, also ...Also) error {
	if err := o.RecordIn(ctx, tx, "consumer "+consumer, action, by, detail); err != nil {
		return err
	}
	for _, do := range also {
		if err := do(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}
