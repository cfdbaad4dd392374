package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// ConsumerStatus is how a consumer is doing.
type ConsumerStatus struct {
	Name     string     `json:"name"`
	Kind     string     `json:"kind"`
	Ordered  bool       `json:"ordered"`
	OnDead   DeadPolicy `json:"on_dead"`
	Patterns []string   `json:"patterns"`
	PausedAt *time.Time `json:"paused_at,omitempty"`
	// Lag counts the events ahead of its cursors that it subscribes to; OldestAge is the age of the oldest, in seconds.
	Lag       int64   `json:"lag"`
	OldestAge float64 `json:"oldest_age_seconds"`
	// InFlight events have a job of their own, HeldKeys are held by a failed one, Waiting events wait behind others of
	// their key, Dead are dead letters.
	InFlight int64 `json:"in_flight"`
	HeldKeys int64 `json:"held_keys"`
	Waiting  int64 `json:"waiting"`
	Dead     int64 `json:"dead"`
	// Passed is how many events that it subscribes to its cursors have ever passed. Those in flight, waiting or dead are among them; the others
	// are settled. A backfill sets it back.
	Passed int64 `json:"passed"`
}

const (
	// countMost is up to how many holds, and how many waiting events, are counted for whoever asks, and countMostOfLane up to how many events
	// of a lane are looked at.
	countMost       = 10_000
	countMostOfLane = 200
	// countLittle is up to how many are counted where it is known that there were no more: to see that there is much takes a hundred
	// milliseconds, of a few consumers.
	countLittle = 1_000
	// countLook bounds that.
	countLook = 10 * time.Second
)

// Consumers returns every consumer by name. What there is little of is counted now; of a consumer with much, the numbers are those
// that the leading relay keeps (Stats).
func (o *Operator) Consumers(ctx context.Context) ([]ConsumerStatus, error) {
	db := o.schema.on(o.pool)
	rows, err := o.q.ConsumerList(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("outbox: list consumers: %w", err)
	}
	stats, err := o.Stats(ctx)
	if err != nil {
		return nil, err
	}
	kept := map[string]ConsumerStats{}
	for _, c := range stats.Consumers {
		kept[c.Name] = c
	}
	all := []ConsumerStatus{}
	for _, r := range rows {
		status := ConsumerStatus{
			Name: r.Name, Kind: r.Kind, Ordered: r.Ordered, OnDead: DeadPolicy(r.OnDead), Patterns: r.Patterns, PausedAt: r.PausedAt,
		}
		k := kept[r.Name]
		if k.Counted && k.Lag+k.InFlight+k.HeldKeys+k.Waiting+k.Dead > countLittle {
			status.take(k)
			if status.Passed, err = o.q.ConsumerPassed(ctx, db, r.Name); err != nil {
				return nil, fmt.Errorf("outbox: read how far %s is: %w", r.Name, err)
			}
			all = append(all, status)
			continue
		}
		var n outboxdb.ConsumerCountsRow
		if err := o.look(ctx, countLook, func(b *pgx.Batch) {
			queueRow(b, &n, o.schema.sql(outboxdb.ConsumerCounts), int64(countMost), int64(countMostOfLane), r.Name)
		}); err != nil {
			return nil, fmt.Errorf("outbox: count what %s has to do: %w", r.Name, err)
		}
		status.Passed = n.Passed
		if !n.Whole && k.Counted {
			status.take(k)
		} else if err := o.count(ctx, db, &status, n); err != nil {
			return nil, err
		}
		all = append(all, status)
	}
	return all, nil
}

func (c *ConsumerStatus) take(k ConsumerStats) {
	c.Lag, c.OldestAge, c.InFlight, c.HeldKeys, c.Waiting, c.Dead = k.Lag, k.OldestAge, k.InFlight, k.HeldKeys, k.Waiting, k.Dead
}

// count fills in what was counted or, where that was not all and no relay has kept anything, counts all.
func (o *Operator) count(ctx context.Context, db outboxdb.DBTX, c *ConsumerStatus, n outboxdb.ConsumerCountsRow) error {
	if !n.Whole {
		lag, err := o.q.ConsumerLag(ctx, db, c.Name)
		if err != nil {
			return fmt.Errorf("outbox: lag of %s: %w", c.Name, err)
		}
		holds, err := o.q.ConsumerHolds(ctx, db, c.Name)
		if err != nil {
			return fmt.Errorf("outbox: holds of %s: %w", c.Name, err)
		}
		n.Lag, n.OldestSeconds = lag.Events, lag.OldestSeconds
		n.InFlight, n.HeldKeys, n.Waiting, n.Dead = holds.InFlight, holds.HeldKeys, holds.Waiting, holds.Dead
	}
	c.Lag, c.OldestAge, c.InFlight, c.HeldKeys, c.Waiting, c.Dead = n.Lag, max(0, n.OldestSeconds), n.InFlight, n.HeldKeys, n.Waiting, n.Dead
	return nil
}

// Pause stops a consumer at the end of its running batches: its events stay where they are. Deliveries that are under
// way finish; no further attempt begins. Resume takes it up again. Both are idempotent.
func (o *Operator) Pause(ctx context.Context, consumer string, by Action, also ...Also) error {
	return o.setPaused(ctx, consumer, by, "pause", o.q.ConsumerPause, also)
}

// Resume ends a Pause.
func (o *Operator) Resume(ctx context.Context, consumer string, by Action, also ...Also) error {
	return o.setPaused(ctx, consumer, by, "resume", o.q.ConsumerResume, also)
}

func (o *Operator) setPaused(
	ctx context.Context, consumer string, by Action, action string, set func(context.Context, outboxdb.DBTX, string) (string, error), also []Also,
) error {
	err := o.inTx(ctx, func(tx pgx.Tx, db outboxdb.DBTX) error {
		if _, err := set(ctx, db, consumer); err != nil {
			return notFound("consumer", err)
		}
		if err := o.jobs.SetPaused(ctx, tx, consumer, action == "pause"); err != nil {
			return err
		}
		return o.auditConsumer(ctx, tx, consumer, action, by, nil, also...)
	})
	if err == nil {
		Wake()
	}
	return err
}
