package outbox

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// waitedOut is up to how long a worker waits for the time of a delivery. To have the job found again when it is due takes
// longer.
const waitedOut = 50 * time.Millisecond

// writeHolds takes events out of the lane: each gets a hold and, unless it is dead at once, a deliver job. In a batch
// of what waited, an event that fails takes the place of the settled hold it waited for. db queues.
func (b *batch) writeHolds(ctx context.Context, db outboxdb.DBTX, items []*item) error {
	if len(items) == 0 {
		return nil
	}
	var (
		deliveries []Delivery
		withJob    []int
		replaced   []uuid.UUID
		dead       outboxdb.HoldBuryParams
		h          = outboxdb.HoldInsertParams{Consumer: b.c.Name, Lane: b.lane}
		limit      = b.maxAttempts(b.c)
	)
	due, err := b.notBefore(ctx, items)
	if err != nil {
		return err
	}
	for i, it := range items {
		reason, attempts := "external", 0
		d := Delivery{
			Consumer: b.c.Name, EventID: it.event.ID, CorrelationID: it.event.CorrelationID, MaxAttempts: limit,
		}
		buried := false
		switch it.outcome {
		case failed:
			reason, attempts = "failed", 1
			d.MaxAttempts--
			if d.After = b.backoff(b.c, 1); d.After <= waitedOut {
				d.NotBefore, d.After = time.Now().Add(d.After), 0
			}
			buried = d.MaxAttempts < 1 || IsPermanent(it.err)
			_ = b.logAttempt(ctx, db, b.c.Name, it.event.ID, 1, "failed", it.err)
			it.dead = buried
		case suspect:
			reason = "suspect"
			_ = b.logAttempt(ctx, db, b.c.Name, it.event.ID, 0, "suspect", it.err)
		case deferred:
			reason, d.After = "scheduled", max(0, due[it.event.Pos])
		}
		h.EventIds = append(h.EventIds, it.event.ID)
		h.Keys = append(h.Keys, it.event.Key)
		h.Positions = append(h.Positions, it.event.Pos)
		h.Reasons = append(h.Reasons, reason)
		h.Attempts = append(h.Attempts, int32(attempts))
		h.JobIds = append(h.JobIds, 0)
		h.Runs = append(h.Runs, it.run)
		if buried {
			dead.EventIds, dead.JobIds = append(dead.EventIds, it.event.ID), append(dead.JobIds, 0)
		} else {
			deliveries, withJob = append(deliveries, d), append(withJob, i)
		}
		if old, ok := b.lift[it.event.Key]; ok && b.released {
			replaced = append(replaced, b.lifting[old].EventID)
		}
	}
	if len(deliveries) > 0 {
		ids, err := b.jobs.Deliver(ctx, b.tx.Tx, deliveries)
		if err != nil {
			return err
		}
		failpoint.At(failpoint.DrainHold)
		for n, i := range withJob {
			h.JobIds[i] = ids[n]
		}
		if slices.ContainsFunc(deliveries, func(d Delivery) bool { return d.After > 0 }) {
			_ = b.q.JobsRunSoon(ctx, db, ids)
		}
	}
	if len(replaced) > 0 {
		_ = b.q.HoldDelete(ctx, db, outboxdb.HoldDeleteParams{Consumer: b.c.Name, EventIds: replaced})
	}
	_ = b.q.HoldInsert(ctx, db, h)
	if len(dead.EventIds) > 0 {
		dead.Consumer = b.c.Name
		_ = b.q.HoldBury(ctx, db, dead)
	}
	return nil
}

// notBefore returns, by position, in how long those of the events that are not due will be, by the database's clock.
func (b *batch) notBefore(ctx context.Context, items []*item) (map[int64]time.Duration, error) {
	var positions []int64
	for _, it := range items {
		if it.outcome == deferred {
			positions = append(positions, it.event.Pos)
		}
	}
	if len(positions) == 0 {
		return nil, nil //nolint:nilnil // a nil map reads as an empty one
	}
	rows, err := b.q.EventsNotBefore(ctx, b.db(b.tx.Tx), outboxdb.EventsNotBeforeParams{Lane: b.lane, Positions: positions})
	if err != nil {
		return nil, err
	}
	due := make(map[int64]time.Duration, len(rows))
	for _, r := range rows {
		due[r.Pos] = time.Duration(r.Seconds * float64(time.Second))
	}
	return due, nil
}

// backoff is the wait after the attempt-th failure: doubling from the consumer's base up to its limit, and up to a
// tenth more, so that what failed together does not come back together.
func (e *Engine) backoff(c *Consumer, attempt int) time.Duration {
	base, limit := e.cfg.RetryBase, e.cfg.RetryMax
	if c.RetryBase > 0 {
		base, limit = c.RetryBase, c.RetryMax
	}
	wait := limit
	if attempt >= 1 && attempt < 63 && base <= limit>>(attempt-1) {
		wait = base << (attempt - 1)
	}
	return wait + min(time.Duration(rand.Int64N(int64(wait)/10+1)), math.MaxInt64-wait)
}

// Backoff is how long to wait after the attempt-th failed attempt of a consumer's deliver job.
func (e *Engine) Backoff(consumer string, attempt int) time.Duration {
	c := e.consumer(consumer)
	if c == nil {
		c = &Consumer{}
	}
	return e.backoff(c, attempt)
}

// logAttempt writes a line of the delivery log, for all but a clean first try.
func (e *Engine) logAttempt(ctx context.Context, db outboxdb.DBTX, consumer string, id uuid.UUID, attempt int32, outcome string, cause error) error {
	arg := outboxdb.DeliveryLogInsertParams{
		Consumer: consumer, EventID: id, Attempt: attempt, Outcome: outcome, Build: e.cfg.Build,
	}
	if cause != nil {
		text := scrub(cause.Error())
		arg.Error = &text
	}
	return e.q.DeliveryLogInsert(ctx, db, arg)
}
