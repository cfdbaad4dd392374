package outbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// state checks what is small, and plans what is large.
func (c *check) state(ctx context.Context, db outboxdb.DBTX) error {
	heads, err := c.q.CheckHeads(ctx, db)
	if err != nil {
		return err
	}
	c.report.From, c.report.To, c.report.Outbox = heads.Floor, heads.Head, heads.Outbox
	if heads.Quarantined > 0 {
		c.add("quarantined", "", "", "%d rows lie in quarantine", heads.Quarantined)
	}
	beyond, err := c.q.CheckBeyond(ctx, db)
	if err != nil {
		return err
	}
	if beyond > 0 {
		c.add("head", "", "", "the log goes up to position %d, above its head %d", beyond, heads.Head)
	}
	for _, part := range []func() error{
		func() error { return c.cursors(ctx, db) },
		func() error { return c.holds(ctx, db, heads.Floor) },
		func() error { return c.waiting(ctx, db, heads.Floor) },
		func() error { return c.letters(ctx, db) },
		func() error { return c.plan(ctx, db, heads.Floor, heads.Head) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func (c *check) cursors(ctx context.Context, db outboxdb.DBTX) error {
	rows, err := c.q.CheckCursors(ctx, db, CheckMost)
	for _, k := range rows {
		switch {
		case k.Missing:
			c.add("cursor", k.Consumer, "", "there is none in lane %d", k.Lane)
		case k.Beyond:
			c.add("cursor", k.Consumer, "", "that of lane %d, at %d, is above the log's head, or goes back to there", k.Lane, k.Pos)
		case k.Runless:
			c.add("cursor", k.Consumer, "", "that of lane %d is set back to %d by backfill %d, which knows nothing of it", k.Lane, k.Pos, k.Run)
		case k.Outside:
			c.add("cursor", k.Consumer, "", "that of lane %d, at %d, is not within backfill %d", k.Lane, k.Pos, k.Run)
		}
	}
	return err
}

func (c *check) holds(ctx context.Context, db outboxdb.DBTX, floor int64) error {
	rows, err := c.q.CheckHolds(ctx, db, outboxdb.CheckHoldsParams{Floor: floor, Most: CheckMost})
	for _, h := range rows {
		id := h.EventID.String()
		if h.Lost {
			c.add("lost", h.Consumer, id, "is held, but not in the log at position %d of lane %d", h.Pos, h.Lane)
		}
		if h.Nobodys {
			c.add("lost", h.Consumer, id, "is held for a consumer that does not exist")
		}
		if h.Astray {
			c.add("lane", h.Consumer, id, "is held in lane %d, which is not its key's", h.Lane)
		}
		if h.Letterless {
			c.add("letter", h.Consumer, id, "is held as dead, and has no dead letter")
		}
		if h.Idle {
			c.add("idle", h.Consumer, id, "is held, and neither an unfinished job nor a dead letter is there for it")
		}
	}
	return err
}

func (c *check) waiting(ctx context.Context, db outboxdb.DBTX, floor int64) error {
	stranded, err := c.q.CheckStranded(ctx, db, CheckMost)
	if err != nil {
		return err
	}
	for _, s := range stranded {
		c.add("stranded", s.Consumer, s.EventID.String(), "waits behind key %s, which nothing holds", s.Key)
	}
	rows, err := c.q.CheckWaiting(ctx, db, outboxdb.CheckWaitingParams{Floor: floor, Most: CheckMost})
	for _, w := range rows {
		if w.Lost {
			c.add("lost", w.Consumer, w.EventID.String(), "waits, but is not in the log at position %d of lane %d", w.Pos, w.Lane)
		}
		if w.Astray {
			c.add("lane", w.Consumer, w.EventID.String(), "waits in lane %d, which is not its key's", w.Lane)
		}
	}
	return err
}

func (c *check) letters(ctx context.Context, db outboxdb.DBTX) error {
	rows, err := c.q.CheckLetters(ctx, db, CheckMost)
	for _, l := range rows {
		c.add("letter", l.Consumer, l.EventID.String(), "dead letter %d has no dead hold", l.ID)
	}
	return err
}

// subscribers are the consumers and runs that there are.
type subscribers struct {
	consumers []outboxdb.CheckConsumersRow
	runs      []outboxdb.CheckRunsRow
}

func (c *check) consumers(ctx context.Context, db outboxdb.DBTX) (s subscribers, err error) {
	if s.consumers, err = c.q.CheckConsumers(ctx, db); err != nil {
		return s, err
	}
	s.runs, err = c.q.CheckRuns(ctx, db)
	return s, err
}

// touching returns a consumer's runs that have to do with a part of the log.
func (s subscribers) touching(part span, consumer string) []outboxdb.CheckRunsRow {
	var runs []outboxdb.CheckRunsRow
	for _, r := range s.runs {
		if r.Consumer == consumer && r.FromPos < part.to && r.ToPos > part.from {
			runs = append(runs, r)
		}
	}
	return runs
}

// fingerprint tells apart what may make another set of deliveries of the same events. A consumer that begins after the part does not
// count, so that a new one forgets nothing.
func (s subscribers) fingerprint(part span) string {
	hash := sha256.New()
	for _, c := range s.consumers {
		runs := s.touching(part, c.Name)
		if len(runs) == 0 && !slices.ContainsFunc(c.Starts, func(start int64) bool { return start < part.to }) {
			continue
		}
		_, _ = fmt.Fprintf(hash, "%q %q\n", c.Name, c.Dedupe)
		for i, pattern := range c.Patterns {
			if len(runs) > 0 || c.Starts[i] < part.to {
				_, _ = fmt.Fprintf(hash, "%q %d\n", pattern, c.Starts[i])
			}
		}
		for _, r := range runs {
			_, _ = fmt.Fprintf(hash, "%d %d %d %t\n", r.ID, r.FromPos, r.ToPos, r.Stopped)
		}
	}
	return hex.EncodeToString(hash.Sum(nil))
}
