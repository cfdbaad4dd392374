package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// retireBatch is how many rows one statement of Retain looks at, where it goes row by row.
	retireBatch = 10_000
	// retireTries is how often a partition is tried that somebody uses at that moment, and retireTime how long all may take.
	retireTries = 5
	retireTime  = 10 * time.Minute
)

// Retain drops what is older than Config.Retention and of no use to anybody: events that every consumer has come past, by
// whole partitions of the log, with the dedupe rows, the delivery log, the edits and the settled letters that belong to them.
//
// What is held, waits, or is a letter that can be replayed is kept, and what was done to it is known, but it keeps nothing else:
// a partition with such events is rewritten to hold them alone. A consumer that is paused, or that a backfill has set back, keeps
// all that is ahead of it.
//
// Call it every few minutes, from any number of processes: one at a time does the work. Its locks on the log are waited for a
// second at most and held for some milliseconds.
func (e *Engine) Retain(ctx context.Context) error {
	if e.cfg.Retention < 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, retireTime)
	defer cancel()
	age := e.cfg.Retention.Seconds()
	if err := e.retire(ctx, func(ctx context.Context, db outboxdb.DBTX) error {
		if _, err := e.q.RetentionFloor(ctx, db, age); err != nil {
			return err
		}
		failpoint.At(failpoint.RetentionFloorBefore)
		return nil
	}); err != nil {
		return fmt.Errorf("outbox: retention: raise the floor: %w", err)
	}
	failpoint.At(failpoint.RetentionFloorAfter)
	for _, step := range []struct {
		name   string
		retire func(ctx context.Context, db outboxdb.DBTX) (what string, err error)
	}{
		{"events", func(ctx context.Context, db outboxdb.DBTX) (string, error) { return e.q.RetireEvents(ctx, db) }},
		{"processed events", func(ctx context.Context, db outboxdb.DBTX) (string, error) { return e.q.RetireProcessed(ctx, db, age) }},
	} {
		if err := e.retirePartitions(ctx, step.retire); err != nil {
			return fmt.Errorf("outbox: retention of %s: %w", step.name, err)
		}
	}
	for _, step := range []struct {
		name   string
		retire func(ctx context.Context, db outboxdb.DBTX) (more bool, err error)
	}{
		{"processed events out of their time", func(ctx context.Context, db outboxdb.DBTX) (bool, error) {
			n, err := e.q.RetireProcessedDefault(ctx, db, outboxdb.RetireProcessedDefaultParams{Seconds: age, Most: retireBatch})
			return n == retireBatch, err
		}},
		{"the delivery log", e.retireDeliveryLog(age)},
		{"letters", func(ctx context.Context, db outboxdb.DBTX) (bool, error) {
			n, err := e.q.RetireLetters(ctx, db, outboxdb.RetireLettersParams{Seconds: age, Most: retireBatch})
			return n == retireBatch, err
		}},
		{"edits", func(ctx context.Context, db outboxdb.DBTX) (bool, error) {
			_, err := e.q.RetireEdits(ctx, db, age)
			return false, err
		}},
	} {
		for more := true; more; {
			more = false
			if err := e.retire(ctx, func(ctx context.Context, db outboxdb.DBTX) (err error) {
				more, err = step.retire(ctx, db)
				return err
			}); err != nil {
				return fmt.Errorf("outbox: retention of %s: %w", step.name, err)
			}
		}
	}
	return nil
}

// retire runs one step of Retain in a transaction of its own, unless another process is at it.
func (e *Engine) retire(ctx context.Context, step func(ctx context.Context, db outboxdb.DBTX) error) error {
	return e.inTx(ctx, func(tx pgx.Tx) error {
		// What is kept of a partition may take a while to find.
		if _, err := tx.Exec(ctx, `set local statement_timeout = '5min'`); err != nil {
			return err
		}
		db := e.db(tx)
		if ok, err := e.q.RetentionLock(ctx, db); err != nil || !ok {
			return err
		}
		return step(ctx, db)
	})
}

// retirePartitions retires partitions until none is left to. One that is in use is tried again, and then left to the next time.
func (e *Engine) retirePartitions(ctx context.Context, retire func(context.Context, outboxdb.DBTX) (string, error)) error {
	for tries := 0; ; {
		var gone string
		err := e.retire(ctx, func(ctx context.Context, db outboxdb.DBTX) (err error) {
			if gone, err = retire(ctx, db); err == nil && gone != "" {
				failpoint.At(failpoint.RetentionPartition)
			}
			return err
		})
		switch {
		case err == nil && gone == "":
			return nil
		case err == nil:
			tries = 0
			e.log.Info("retention: partition retired", "partition", gone)
		case transient(err) && ctx.Err() == nil:
			if tries++; tries == retireTries {
				e.log.Warn("retention: a partition is in use; it is left for the next time", "error", err)
				return nil
			}
		default:
			return err
		}
	}
}

// retireDeliveryLog goes through the log once, in the order of its ids.
func (e *Engine) retireDeliveryLog(age float64) func(context.Context, outboxdb.DBTX) (bool, error) {
	after := int64(0)
	return func(ctx context.Context, db outboxdb.DBTX) (bool, error) {
		row, err := e.q.RetireDeliveryLog(ctx, db, outboxdb.RetireDeliveryLogParams{After: after, Most: retireBatch, Seconds: age})
		if err != nil {
			return false, err
		}
		more := row.Looked == retireBatch && row.Last > after
		after = max(after, row.Last)
		return more, nil
	}
}
