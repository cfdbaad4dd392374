package outbox

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// countSpan is how many positions one statement counts over, and countTime for how long a sample counts: the next one goes on.
	countSpan = 100_000
	countTime = 500 * time.Millisecond
	// countFar is over how many positions it is counted what came; beyond, what is ahead of the cursors is less.
	countFar = 200_000
	// auditLanes are counted again in a sample that looks at all, where the cursor is no more than auditSpan positions from the end of the log.
	auditLanes = 8
	auditSpan  = 50_000
)

// cursorPlace is where a cursor is.
type cursorPlace struct {
	pos, passed             int64
	run, runsTo, resumesPos int64 // in a run, which ends at runsTo, the cursor goes on from resumesPos then
}

// standing is how far a consumer is. By lane, what is ready less what its cursor has passed is what is ahead of that: the events above it
// up to head, and in a run those up to its end and those from where the cursor goes on then. (Where the cursor is beyond head, it is less
// than nothing by what lies between.)
type standing struct {
	name          string
	head          int64
	ready         [Lanes]int64
	subscriptions []string // as pattern@from_pos
	places        [Lanes]cursorPlace
	placed        bool
	looks         [Lanes]look
	paused        bool
	freeAt        time.Time // since when it can take what is ahead of it

	count    *recount // under way: ready is what came since
	measured bool     // put says something
	put      outboxdb.ConsumerStatsPutParams
	kept     outboxdb.ConsumerStatsPutParams
}

// stretch is a part of a lane.
type stretch struct {
	lane      int16
	low, high int64 // above low, up to high
	again     bool  // in a run: whatever the consumer subscribes to now
	sign      int64
}

// recount counts what is ahead of the cursors.
type recount struct {
	spans  []stretch
	at, to int64
	sums   [Lanes]int64
}

// learn is a consumer's standing as it was kept.
func learn(row outboxdb.StatsConsumersRow) *standing {
	st := &standing{name: row.Name, head: -1}
	if row.Head >= 0 && len(row.Ready) == Lanes {
		st.head, st.subscriptions = row.Head, row.CountedBy
		copy(st.ready[:], row.Ready)
	}
	return st
}

// came adds what came into the log for the consumer.
func (s *sampler) came(ctx context.Context, tx pgx.Tx, st *standing, row outboxdb.StatsConsumersRow, c came) error {
	subscriptions, begins, anew := make([]string, len(row.Patterns)), false, st.head < 0 || st.head > c.head
	for i, p := range row.Patterns {
		subscriptions[i] = fmt.Sprintf("%s@%d", p, row.FromPos[i])
		fresh := !slices.Contains(st.subscriptions, subscriptions[i])
		begins = begins || fresh || row.FromPos[i] > st.head
		anew = anew || fresh && row.FromPos[i] < st.head
	}
	gone := slices.ContainsFunc(st.subscriptions, func(sub string) bool { return !slices.Contains(subscriptions, sub) })
	switch {
	case anew || gone || st.head != c.from && c.head-st.head > countFar:
		st.restart()
	case begins || st.head != c.from: // what the relay has seen does not tell
		var spans []stretch
		for lane := range int16(Lanes) {
			spans = append(spans, stretch{lane, st.head, c.head, false, 1})
		}
		sums, err := s.sum(ctx, tx, st.name, spans)
		if err != nil {
			return err
		}
		for lane, n := range sums {
			st.ready[lane] += n
		}
	default:
		for t, n := range c.types {
			if slices.ContainsFunc(row.Patterns, func(p string) bool { return matches(p, t.eventType) }) {
				st.ready[t.lane] += n
			}
		}
	}
	st.head, st.subscriptions = c.head, subscriptions
	return nil
}

// restart has all that is ahead of the cursors counted.
func (st *standing) restart() {
	st.ready, st.count = [Lanes]int64{}, &recount{}
}

// see takes note of where the cursors are, and reports whether that can be, by what is known; else somebody has moved them by hand, or has
// restored them.
func (st *standing) see(places *[Lanes]cursorPlace) (sound bool) {
	sound = true
	for lane, p := range places {
		before := st.places[lane]
		back := st.placed && p.run == before.run && p.pos < before.pos
		beyond := st.count == nil && max(p.pos, p.resumesPos) <= st.head && p.passed > st.ready[lane]
		if back || beyond {
			st.restart()
			sound = false
			break
		}
	}
	st.places, st.placed = *places, true
	if st.count == nil || st.count.spans != nil {
		return sound
	}
	r := st.count
	r.at, r.to, r.spans = math.MaxInt64, 0, []stretch{}
	for lane, p := range places {
		r.sums[lane] = p.passed
		r.spans = append(r.spans, p.ahead(int16(lane), st.head)...)
	}
	for _, sp := range r.spans {
		r.at, r.to = min(r.at, sp.low), max(r.to, sp.high)
	}
	return sound
}

// ahead is what lies between a cursor and the end of the log, as far as there is something.
func (p cursorPlace) ahead(lane int16, head int64) []stretch {
	var spans []stretch
	if p.run != 0 && p.pos < p.runsTo {
		spans = append(spans, stretch{lane, p.pos, p.runsTo, true, 1})
	}
	switch from := max(p.pos, p.resumesPos); {
	case from < head:
		spans = append(spans, stretch{lane, from, head, false, 1})
	case from > head:
		spans = append(spans, stretch{lane, head, from, false, -1})
	}
	return spans
}

// count goes on with a count that is under way.
func (s *sampler) count(ctx context.Context, tx pgx.Tx, st *standing, until time.Time) error {
	r := st.count
	if r == nil {
		return nil
	}
	for ; r.at < r.to; r.at += countSpan {
		if time.Now().After(until) {
			return nil
		}
		var spans []stretch
		for _, sp := range r.spans {
			if sp.low, sp.high = max(sp.low, r.at), min(sp.high, r.at+countSpan); sp.low < sp.high {
				spans = append(spans, sp)
			}
		}
		sums, err := s.sum(ctx, tx, st.name, spans)
		if err != nil {
			return err
		}
		for lane, n := range sums {
			r.sums[lane] += n
		}
	}
	for lane, n := range r.sums {
		st.ready[lane] += n
	}
	st.count = nil
	return nil
}

// sum counts, by lane, the events of the spans that the consumer wants.
func (s *sampler) sum(ctx context.Context, tx pgx.Tx, consumer string, spans []stretch) (sums [Lanes]int64, err error) {
	if len(spans) == 0 {
		return sums, nil
	}
	var arg outboxdb.StatsCountParams
	for i, sp := range spans {
		arg.Numbers, arg.Consumers, arg.Lanes = append(arg.Numbers, int32(i)), append(arg.Consumers, consumer), append(arg.Lanes, sp.lane)
		arg.Lows, arg.Highs, arg.Again = append(arg.Lows, sp.low), append(arg.Highs, sp.high), append(arg.Again, sp.again)
	}
	rows, err := s.q.StatsCount(ctx, s.db(tx), arg)
	for _, row := range rows {
		sums[spans[row.N].lane] += spans[row.N].sign * row.Events
	}
	return sums, err
}

// audit counts a few lanes of each consumer again, as far as that is soon done, and corrects what is kept: drains of a build that does not
// know of it leave cursors.passed as it was.
func (s *sampler) audit(ctx context.Context, tx pgx.Tx) error {
	for _, st := range s.known {
		if st.count != nil {
			continue
		}
		var spans []stretch
		var lanes []int
		for i := range auditLanes {
			lane := (s.turn + i) % Lanes
			ahead := st.places[lane].ahead(int16(lane), st.head)
			if slices.ContainsFunc(ahead, func(sp stretch) bool { return sp.high-sp.low > auditSpan }) {
				continue
			}
			lanes, spans = append(lanes, lane), append(spans, ahead...)
		}
		sums, err := s.sum(ctx, tx, st.name, spans)
		if err != nil {
			return err
		}
		for _, lane := range lanes {
			if ready := st.places[lane].passed + sums[lane]; ready != st.ready[lane] {
				s.log.Info("statistics: a lane's lag is corrected", "consumer", st.name, "lane", lane, "by", ready-st.ready[lane])
				st.ready[lane] = ready
			}
		}
		st.measure()
	}
	s.turn += auditLanes
	return nil
}

// lag is what is ahead of a cursor.
func (st *standing) lag(lane int) int64 { return max(0, st.ready[lane]-st.places[lane].passed) }

// measure puts together what is to be kept. As long as it is counted anew, the lag is what it was.
func (st *standing) measure() {
	p := &st.put
	p.Consumer, p.Head, p.Ready, p.Patterns = st.name, -1, slices.Clone(st.ready[:]), slices.Clone(st.subscriptions)
	if st.count != nil {
		return
	}
	p.Head, p.Lag, st.measured = st.head, 0, true
	for lane := range st.ready {
		p.Lag += st.lag(lane)
	}
	if p.Lag == 0 {
		p.OldestAt = nil
	}
}

// look is a look for the first event ahead of a cursor.
type look struct {
	from, run int64 // where the cursor was
	pos       int64 // what it found
	at        time.Time
	relayedAt time.Time
	wanted    bool // else it found only that there is nothing wanted before
}

// lookFar is how many events a look goes through in a lane; the next one goes on from there, and what it has found until then is about as old.
const lookFar = 100

// findOldest finds the oldest events ahead of the cursors, in one statement for all of which that is not known.
func (s *sampler) findOldest(ctx context.Context, tx pgx.Tx) error {
	type where struct {
		st   *standing
		lane int
	}
	var asked []where
	arg := outboxdb.StatsOldestParams{Most: lookFar, Skip: lookFar - 1}
	for _, st := range s.known {
		for lane := range st.ready {
			p, l := st.places[lane], &st.looks[lane]
			goesOn := l.run == p.run && l.from <= p.pos && p.pos < l.pos
			switch {
			case st.count == nil && st.lag(lane) == 0, goesOn && l.wanted:
				continue
			case !goesOn:
				*l = look{from: p.pos, run: p.run, pos: p.pos}
			}
			high := int64(math.MaxInt64)
			if p.run != 0 {
				high = p.runsTo
			}
			arg.Numbers, arg.Consumers, arg.Lanes = append(arg.Numbers, int32(len(asked))), append(arg.Consumers, st.name), append(arg.Lanes, int16(lane))
			arg.Lows, arg.Highs, arg.Again = append(arg.Lows, l.pos), append(arg.Highs, high), append(arg.Again, p.run != 0)
			asked = append(asked, where{st, lane})
		}
	}
	if len(asked) > 0 {
		rows, err := s.q.StatsOldest(ctx, s.db(tx), arg)
		if err != nil {
			return err
		}
		for _, row := range rows {
			l := &asked[row.N].st.looks[asked[row.N].lane]
			l.pos, l.at, l.relayedAt, l.wanted = row.Pos, row.OccurredAt, row.RelayedAt, row.Wanted
		}
	}
	for _, st := range s.known {
		st.put.OldestAt = st.oldest()
	}
	return nil
}

// oldest is when the oldest event ahead of the cursors occurred.
func (st *standing) oldest() *time.Time {
	var oldest *time.Time
	for lane, l := range st.looks {
		if st.ahead(lane) && (oldest == nil || l.at.Before(*oldest)) {
			oldest = &l.at
		}
	}
	return oldest
}

// ahead reports whether the last look found what is still ahead of the cursor.
func (st *standing) ahead(lane int) bool {
	return st.looks[lane].pos > st.places[lane].pos && (st.count != nil || st.lag(lane) > 0)
}

// aheadSince is since when the consumer could have taken the oldest of what is ahead of its cursors, counted from when that came into the
// log: whoever writes in a long transaction says that an event occurred long before anybody can see it. Paused, or in a backfill, it leaves its
// events where they are because somebody wants it to.
func (st *standing) aheadSince() (since time.Time, some bool) {
	if st.paused || slices.ContainsFunc(st.places[:], func(p cursorPlace) bool { return p.run != 0 }) {
		return since, false
	}
	for lane, l := range st.looks {
		if l.wanted && st.ahead(lane) && (!some || l.relayedAt.Before(since)) {
			since, some = l.relayedAt, true
		}
	}
	if some && since.Before(st.freeAt) {
		since = st.freeAt
	}
	return since, some
}
