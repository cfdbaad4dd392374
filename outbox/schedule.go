package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// dueBatch is how many scheduled events enter the outbox in one transaction at most.
	dueBatch = 500
	// dueEvery is how often a relay under load looks for them; an idle one does with each poll.
	dueEvery = 100 * time.Millisecond
)

// CancelScheduled takes back scheduled events as part of tx and returns those of the ids that it did: the others are due
// already, or block their keys, or never were.
func CancelScheduled(ctx context.Context, tx pgx.Tx, ids ...uuid.UUID) ([]uuid.UUID, error) {
	return Schema("").CancelScheduled(ctx, tx, ids...)
}

// CancelScheduled is the package's CancelScheduled for the tables in this schema.
func (s Schema) CancelScheduled(ctx context.Context, tx pgx.Tx, ids ...uuid.UUID) ([]uuid.UUID, error) {
	gone, err := outboxdb.New().ScheduledCancel(ctx, s.on(tx), ids)
	if err != nil {
		return nil, fmt.Errorf("outbox: cancel scheduled events: %w", err)
	}
	return gone, nil
}

// releaseDue puts what is due into the outbox, for the next move, and reports whether anything was. An event whose key a producer has in hand comes with a later
// look. Two relays that do this at the same time do no harm: each event is deleted once.
func (r *relay) releaseDue(ctx context.Context) (released bool, err error) {
	r.dueAt = time.Now()
	err = r.inTx(ctx, func(tx pgx.Tx) error {
		db := r.db(tx)
		ids, err := r.q.ScheduledDue(ctx, db, dueBatch)
		if err != nil || len(ids) == 0 {
			return err
		}
		failpoint.At(failpoint.RelayDueBefore)
		n, err := r.q.ScheduledRelease(ctx, db, ids)
		released = n > 0
		return err
	})
	if err != nil {
		return false, fmt.Errorf("release scheduled events: %w", err)
	}
	if released {
		failpoint.At(failpoint.RelayDueAfter)
	}
	return released, nil
}
