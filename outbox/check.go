package outbox

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// checkStep is how many positions one snapshot of a check covers.
	checkStep = 100_000
	// CheckMost is how many problems a Check names at most.
	CheckMost = 100
)

// CheckReport is what a Check found.
type CheckReport struct {
	// From and To are the positions that were looked at: above From, up to To.
	From, To int64
	Outbox   int64
	Problems []CheckProblem

	floor int64 // of retention
}

// CheckProblem is something that must not be.
type CheckProblem struct {
	Kind     string `json:"kind"` // nowhere, twice, gap, stranded or quarantined
	Consumer string `json:"consumer,omitempty"`
	EventID  string `json:"event_id,omitempty"`
	Detail   string `json:"detail"`
}

// Check proves that every relayed event is, for every consumer that subscribes to it, in exactly one place: ahead of
// the cursor, waiting, in flight, dead, skipped, processed or dismissed; that the log has no gaps; that nothing waits for a
// hold that is gone; and that nothing lies in quarantine. It may run beside everything else: each step reads one
// REPEATABLE READ snapshot.
func (o *Operator) Check(ctx context.Context) (*CheckReport, error) {
	r := &CheckReport{}
	err := o.snapshot(ctx, func(db outboxdb.DBTX) error {
		heads, err := o.q.CheckHeads(ctx, db)
		if err != nil {
			return err
		}
		first, err := o.q.CheckFirst(ctx, db)
		if err != nil {
			return err
		}
		r.From, r.To, r.Outbox, r.floor = max(first-1, 0), heads.Head, heads.Outbox, heads.Floor
		if heads.Quarantined > 0 {
			r.add("quarantined", "", "", fmt.Sprintf("%d rows lie in quarantine", heads.Quarantined))
		}
		stranded, err := o.q.CheckStranded(ctx, db, CheckMost)
		for _, s := range stranded {
			r.add("stranded", s.Consumer, s.EventID.String(), "waits behind key "+s.Key+", which nothing holds")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: check: %w", err)
	}
	for from := r.From; from < r.To && len(r.Problems) < CheckMost; from += checkStep {
		to := min(from+checkStep, r.To)
		if err := o.snapshot(ctx, func(db outboxdb.DBTX) error { return o.checkRange(ctx, db, r, from, to) }); err != nil {
			return nil, fmt.Errorf("outbox: check positions %d to %d: %w", from+1, to, err)
		}
	}
	return r, nil
}

func (o *Operator) checkRange(ctx context.Context, db outboxdb.DBTX, r *CheckReport, from, to int64) error {
	// Below the floor only some are left.
	if low := max(from, r.floor); low < to {
		n, err := o.q.CheckGaps(ctx, db, outboxdb.CheckGapsParams{FromPos: low, ToPos: to})
		if err != nil {
			return err
		}
		if n != to-low {
			r.add("gap", "", "", fmt.Sprintf("positions %d to %d hold %d events", low+1, to, n))
		}
	}
	rows, err := o.q.CheckEvents(ctx, db, outboxdb.CheckEventsParams{FromPos: from, ToPos: to, Most: CheckMost})
	if err != nil {
		return err
	}
	for _, e := range rows {
		var places []string
		for _, p := range []struct {
			in   bool
			name string
		}{
			{e.Ahead, "ahead of the cursor"},
			{e.Waiting, "waiting"},
			{e.InFlight, "in flight"},
			{e.Dead && !e.Skipped, "dead"},
			{e.Dead && e.Skipped, "skipped"},
			{e.Processed, "processed"},
			{e.Dismissed, "dismissed"},
		} {
			if p.in {
				places = append(places, p.name)
			}
		}
		if len(places) == 0 {
			r.add("nowhere", e.Consumer, e.ID.String(), fmt.Sprintf("%s at position %d is in no place", e.Type, e.Pos))
		} else {
			r.add("twice", e.Consumer, e.ID.String(), fmt.Sprintf("%s at position %d is %s", e.Type, e.Pos, strings.Join(places, " and ")))
		}
	}
	return nil
}

func (r *CheckReport) add(kind, consumer, event, detail string) {
	if len(r.Problems) < CheckMost {
		r.Problems = append(r.Problems, CheckProblem{kind, consumer, event, detail})
	}
}

func (o *Operator) snapshot(ctx context.Context, fn func(db outboxdb.DBTX) error) error {
	opts := pgx.TxOptions{BeginQuery: "begin isolation level repeatable read read only"}
	return pgx.BeginTxFunc(ctx, o.pool, opts, func(tx pgx.Tx) error { return fn(o.schema.on(tx)) })
}
