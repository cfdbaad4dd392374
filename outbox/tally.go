package outbox

import (
	"sync"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// tally is what a relay that leads knows of the events it has moved: how many of each type came into each lane. The sampler takes it now
// and then, so that nobody counts in the log what was seen on its way there.
type tally struct {
	mu    sync.Mutex
	epoch int // how often the relay has learnt anew where the log ends
	from  int64
	head  int64
	above int64
	types map[laneType]int64
}

type laneType struct {
	lane      int16
	eventType string
}

// came is what came into the log above position from, up to head.
type came struct {
	epoch      int
	from, head int64
	above      int64 // where looks at the outbox begin
	types      map[laneType]int64
}

// reset begins anew at the head of the log: what was noted may not have happened.
func (t *tally) reset(head int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epoch++
	t.from, t.head, t.above, t.types = head, head, 0, map[laneType]int64{}
}

// moved notes a committed move, after which the log ends at head.
func (t *tally) moved(rows []outboxdb.RelayMoveRow, head, above int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, row := range rows {
		t.types[laneType{row.Lane, row.Type}] += row.Events
	}
	t.head, t.above = head, above
}

// take returns what came since the last one.
func (t *tally) take() came {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := came{t.epoch, t.from, t.head, t.above, t.types}
	t.from, t.types = t.head, map[laneType]int64{}
	return c
}
