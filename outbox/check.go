package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// CheckMost is how many problems a check names at most.
	CheckMost = 100
	// CheckWithin is in how many incremental checks each remembered range is looked at again.
	CheckWithin = 10
	// checkRange is how many positions one snapshot of a check covers: some tenths of a second, and some tens of MB in the server.
	checkRange = 100_000
)

// CheckOptions say how much a check looks at.
type CheckOptions struct {
	// Incremental passes over the parts of the log that an earlier incremental check found to be in order and at rest: every event
	// processed or dismissed for each of its consumers, none ahead of a cursor, held, waiting or dead. They are
	// remembered, and looked at again when a consumer, subscription or backfill that concerns them comes, changes or goes.
	Incremental bool
	// Within is in how many incremental checks each remembered part is looked at again, the oldest first, to find what was damaged
	// afterwards; 0: CheckWithin, 1: in each.
	Within int
	// Range is how many positions are looked at in one snapshot; 0: 100,000. What is remembered is remembered by range: a change of it
	// forgets everything.
	Range int64
	// Progress, where it is set, is called after each of them.
	Progress func(done, total int64)
}

// CheckReport is what a check found.
type CheckReport struct {
	// From and To are the log's positions: above From, up to To.
	From   int64 `json:"from"`
	To     int64 `json:"to"`
	Outbox int64 `json:"outbox"`
	// Checked is how many of the positions were looked at. The others were passed over by an incremental check.
	Checked int64 `json:"checked"`
	// Deliveries is how many events × subscribed consumers that were.
	Deliveries int64          `json:"deliveries"`
	Problems   []CheckProblem `json:"problems"`
	// Truncated says that there may be more: the check ended when it had found CheckMost of them.
	Truncated bool `json:"truncated"`
}

// CheckProblem is something that must not be.
type CheckProblem struct {
	// Kind is what is wrong: of an event, nowhere, twice, lane or order; of the log, gap, duplicate or head; stranded (waiting
	// without a hold), lost (held or waiting without an event or a consumer), idle (held without a job or a letter), letter
	// (a dead hold without one, or one without a dead hold), cursor or quarantined.
	Kind     string `json:"kind"`
	Consumer string `json:"consumer,omitempty"`
	EventID  string `json:"event_id,omitempty"`
	Detail   string `json:"detail"`
}

// Check proves that every relayed event is, for every consumer that subscribes to it, in exactly one place: ahead of
// the cursor, waiting, in flight, dead, skipped, processed or dismissed; that the log has no gaps, and each event once, in its lane and
// in the order of its key; and that what moves the events on (cursors, holds, jobs, letters) fits together. It writes nothing and may
// run beside everything else: each step reads one REPEATABLE READ snapshot.
func (o *Operator) Check(ctx context.Context) (*CheckReport, error) {
	return o.CheckWith(ctx, CheckOptions{})
}

// CheckWith is Check with options.
func (o *Operator) CheckWith(ctx context.Context, opts CheckOptions) (*CheckReport, error) {
	if opts.Range <= 0 {
		opts.Range = checkRange
	}
	if opts.Within <= 0 {
		opts.Within = CheckWithin
	}
	c := &check{Operator: o, opts: opts, report: &CheckReport{Problems: []CheckProblem{}}}
	if err := c.snapshot(ctx, c.state); err != nil {
		return nil, fmt.Errorf("outbox: check: %w", err)
	}
	if err := c.forget(ctx, c.outdated); err != nil {
		return nil, err
	}
	var total, done int64
	for _, s := range c.spans {
		total += s.positions()
	}
	for _, s := range c.spans {
		if len(c.report.Problems) >= CheckMost {
			break
		}
		if err := c.look(ctx, s); err != nil {
			return nil, fmt.Errorf("outbox: check positions %d to %d: %w", s.from+1, s.to, err)
		}
		done += s.positions()
		if opts.Progress != nil {
			opts.Progress(done, total)
		}
	}
	c.report.Checked = done
	c.report.Truncated = len(c.report.Problems) >= CheckMost
	return c.report, nil
}

// check is one run of CheckWith.
type check struct {
	*Operator
	opts     CheckOptions
	report   *CheckReport
	spans    []span
	outdated []int64 // starts of ranges that are not to be remembered any more
}

// span is a part of the log: above from, up to to.
type span struct {
	from, to int64
	kept     bool // of what lies below the floor only some is kept
	whole    bool // it is a full range, which can be remembered
	known    bool // it is remembered
}

// positions is how many there should be.
func (s span) positions() int64 {
	if s.kept {
		return 0
	}
	return s.to - s.from
}

// plan divides the log into ranges, and leaves out those that are remembered as they would be now, but for the oldest of them.
func (c *check) plan(ctx context.Context, db outboxdb.DBTX, floor, head int64) error {
	if floor > 0 {
		c.spans = append(c.spans, span{to: floor, kept: true})
	}
	for at := floor; at < head; {
		start := at / c.opts.Range * c.opts.Range
		s := span{from: at, to: min(start+c.opts.Range, head), whole: at == start && start+c.opts.Range <= head}
		c.spans = append(c.spans, s)
		at = s.to
	}
	if !c.opts.Incremental {
		return nil
	}
	subscribed, err := c.consumers(ctx, db)
	if err != nil {
		return err
	}
	unfinished, err := c.q.CheckUnfinishedRanges(ctx, db, c.opts.Range)
	if err != nil {
		return err
	}
	remembered, err := c.q.CheckedList(ctx, db)
	if err != nil {
		return err
	}
	index := map[int64]int{}
	for i, s := range c.spans {
		index[s.from] = i
	}
	var trusted []int64
	for _, row := range remembered {
		i, ok := index[row.FromPos]
		if !ok || !c.spans[i].whole || c.spans[i].to != row.ToPos {
			c.outdated = append(c.outdated, row.FromPos)
			continue
		}
		c.spans[i].known = true
		if row.Fingerprint == subscribed.fingerprint(c.spans[i]) && !slices.Contains(unfinished, row.FromPos/c.opts.Range) {
			trusted = append(trusted, row.FromPos)
		}
	}
	again := (len(trusted) + c.opts.Within - 1) / c.opts.Within
	passed := map[int64]bool{}
	for _, from := range trusted[again:] {
		passed[from] = true
	}
	c.spans = slices.DeleteFunc(c.spans, func(s span) bool { return passed[s.from] })
	return nil
}

// look checks one part of the log and, in an incremental check, notes whether it can be passed over from now on.
func (c *check) look(ctx context.Context, s span) error {
	var print string
	found, atRest := len(c.report.Problems), false
	err := c.snapshot(ctx, func(ctx context.Context, db outboxdb.DBTX) error {
		subscribed, err := c.consumers(ctx, db)
		if err != nil {
			return err
		}
		print = subscribed.fingerprint(s)
		atRest, err = c.positions(ctx, db, s, subscribed)
		return err
	})
	switch {
	case err != nil || !c.opts.Incremental:
		return err
	case s.whole && atRest && len(c.report.Problems) == found:
		return c.q.CheckedPut(ctx, c.schema.on(c.pool), outboxdb.CheckedPutParams{FromPos: s.from, ToPos: s.to, Fingerprint: print})
	case s.known:
		return c.forget(ctx, []int64{s.from})
	}
	return nil
}

func (c *check) forget(ctx context.Context, from []int64) error {
	if len(from) == 0 {
		return nil
	}
	if err := c.q.CheckedForget(ctx, c.schema.on(c.pool), from); err != nil {
		return fmt.Errorf("outbox: forget checked ranges: %w", err)
	}
	return nil
}

func (c *check) add(kind, consumer, event, detail string, args ...any) {
	if len(c.report.Problems) < CheckMost {
		c.report.Problems = append(c.report.Problems, CheckProblem{kind, consumer, event, fmt.Sprintf(detail, args...)})
	}
}

// snapshot calls fn in a transaction that sees one state of the database, and changes nothing.
func (c *check) snapshot(ctx context.Context, fn func(ctx context.Context, db outboxdb.DBTX) error) error {
	opts := pgx.TxOptions{BeginQuery: "begin isolation level repeatable read read only"}
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("a snapshot of the check took too long"))
	defer cancel()
	return pgx.BeginTxFunc(ctx, c.pool, opts, func(tx pgx.Tx) error {
		db := c.schema.on(tx)
		if err := c.q.CheckBounds(ctx, db); err != nil {
			return err
		}
		return fn(ctx, db)
	})
}
