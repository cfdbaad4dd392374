package outbox

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// checkOverlap is how far back an event's key is looked for in the range before: two events out of order are found if they are in
// one range, or that near.
const checkOverlap = 10_000

// positions checks one part of the log, and reports whether nothing more will come of it.
func (c *check) positions(ctx context.Context, db outboxdb.DBTX, s span, subscribed subscribers) (atRest bool, err error) {
	var ids []uuid.UUID
	if !s.kept {
		if ids, err = c.log(ctx, db, s); err != nil {
			return false, err
		}
	}
	unfinished, err := c.q.CheckUnfinished(ctx, db, outboxdb.CheckUnfinishedParams{FromPos: s.from, ToPos: s.to})
	if err != nil {
		return false, err
	}
	atRest = true
	for _, consumer := range subscribed.consumers {
		p := &placing{check: c, span: s, consumer: consumer, dedupes: []string{consumer.Dedupe}}
		for _, r := range subscribed.touching(s, consumer.Name) {
			p.inRun, p.dedupes = true, append(p.dedupes, dedupe(consumer.Dedupe, r.ID))
		}
		for _, u := range unfinished {
			if u.Consumer == consumer.Name {
				p.lanes, p.positions = append(p.lanes, u.Lane), append(p.positions, u.Pos)
				atRest = atRest && u.Final
			}
		}
		ahead, err := p.places(ctx, db, ids)
		if err != nil {
			return false, err
		}
		atRest = atRest && ahead == 0
	}
	return atRest, nil
}

// log checks the log itself, which above its floor has every position once. It returns two ids that nearly all of the part are between.
func (c *check) log(ctx context.Context, db outboxdb.DBTX, s span) ([]uuid.UUID, error) {
	log, err := c.q.CheckLog(ctx, db, outboxdb.CheckLogParams{FromPos: s.from, ToPos: s.to, Sample: max(1, (s.to-s.from)/5000)})
	if err != nil {
		return nil, err
	}
	from := max(c.report.From, s.from-checkOverlap)
	order, err := c.q.CheckOrder(ctx, db, outboxdb.CheckOrderParams{FromPos: s.from, BackTo: from, ToPos: s.to})
	if err != nil {
		return nil, err
	}
	if order.Doubled > 0 {
		c.add("duplicate", "", "", "positions %d to %d: %d of them are taken twice", s.from+1, s.to, order.Doubled)
	}
	if n := log.Events - order.Doubled; n != s.to-s.from {
		c.add("gap", "", "", "positions %d to %d hold %d events", s.from+1, s.to, n)
	}
	for _, id := range log.Astray {
		c.add("lane", "", id.String(), "is in a lane of the log that is not its key's")
	}
	if len(order.Positions) == 0 {
		return log.Ids, nil
	}
	late, err := c.q.CheckLate(ctx, db, outboxdb.CheckLateParams{
		Lanes: order.Lanes, Positions: order.Positions, FromPos: s.from, BackTo: from, ToPos: s.to, Most: CheckMost,
	})
	for _, id := range late.Repeated {
		c.add("duplicate", "", id.String(), "was moved into the log twice")
	}
	for _, id := range late.Disordered {
		c.add("order", "", id.String(), "comes after a later one of its key")
	}
	return log.Ids, err
}

// placing finds the events of a part of the log that are not in exactly one place for a consumer.
type placing struct {
	*check
	span
	consumer  outboxdb.CheckConsumersRow
	dedupes   []string // the names under which they may be deduplicated
	inRun     bool     // some of them are in a run
	lanes     []int16  // where they are that have to be asked for one by one
	positions []int64
}

// places looks at all events of the part, and then closely at those of which that leaves a doubt.
func (p *placing) places(ctx context.Context, db outboxdb.DBTX, ids []uuid.UUID) (ahead int64, err error) {
	low, high, err := p.window(ctx, db, ids)
	if err != nil {
		return 0, err
	}
	arg := outboxdb.CheckPlacesParams{
		Low: low, High: high, Consumer: p.consumer.Name, InRun: p.inRun, Dedupe: p.consumer.Dedupe, Names: p.dedupes,
		FromPos: p.from, ToPos: p.to, Patterns: []string{},
	}
	for i, pattern := range p.consumer.Patterns {
		switch start := p.consumer.Starts[i]; {
		case start <= p.from:
			arg.Patterns = append(arg.Patterns, pattern)
		case start < p.to || p.inRun:
			arg.Later = true
		}
	}
	if len(arg.Patterns) == 0 && !arg.Later {
		return 0, nil // all of it is from before its time
	}
	all, err := p.q.CheckPlaces(ctx, db, arg)
	if err != nil {
		return 0, fmt.Errorf("places for %s: %w", p.consumer.Name, err)
	}
	p.report.Deliveries += all.Events
	p.lanes, p.positions = append(p.lanes, all.Lanes...), append(p.positions, all.Positions...)
	if len(p.positions) == 0 {
		return all.Ahead, nil
	}
	rows, err := p.q.CheckEvents(ctx, db, outboxdb.CheckEventsParams{
		Dedupe: p.consumer.Dedupe, Lanes: p.lanes, Positions: p.positions, FromPos: p.from, ToPos: p.to, Consumer: p.consumer.Name,
		InRun: p.inRun, Most: CheckMost,
	})
	for _, e := range rows {
		p.misplaced(e)
	}
	return all.Ahead, err
}

// window returns ids between which to read processed_events: those of nearly all events, as long as not many more rows lie there
// than the events can have. Ids that do not rise with time lie everywhere: then nothing is read, and each is asked for.
func (p *placing) window(ctx context.Context, db outboxdb.DBTX, ids []uuid.UUID) (low, high uuid.UUID, err error) {
	if len(ids) != 2 {
		return uuid.Max, uuid.Nil, nil
	}
	most := min(int64(len(p.dedupes)+3)*(p.to-p.from), 1<<30)
	n, err := p.q.CheckWindow(ctx, db, outboxdb.CheckWindowParams{Names: p.dedupes, Low: ids[0], High: ids[1], Most: int32(most)})
	if err != nil || n == most {
		return uuid.Max, uuid.Nil, err
	}
	return ids[0], ids[1], nil
}

func (p *placing) misplaced(e outboxdb.CheckEventsRow) {
	var places []string
	for _, of := range []struct {
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
		if of.in {
			places = append(places, of.name)
		}
	}
	kind, where := "twice", strings.Join(places, " and ")
	if len(places) == 0 {
		kind, where = "nowhere", "in no place"
	}
	p.add(kind, p.consumer.Name, e.ID.String(), "%s at position %s is %s", e.Type, strconv.FormatInt(e.Pos, 10), where)
}
