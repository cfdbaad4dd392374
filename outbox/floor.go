package outbox

import (
	"time"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// floorDoubt is how often a relay looks below its floor all the same.
const floorDoubt = 30 * time.Second

// floor is the number up to which no row of the outbox will appear any more, so that a relay need not walk again over
// what it has deleted: while somebody's old snapshot is open, deleted rows cannot be cleaned away, and every look at the
// outbox would pass all of them.
//
// Numbers do not commit in their order, so the highest number seen is no such floor. This is: a producer has a
// transaction id before it draws a number (a trigger on the table sees to it). The relay reads the last number drawn, and
// then gets an id itself. Once every transaction older than that has ended, all rows up to that number are there to
// be seen or never will be; and what there is, is moved.
type floor struct {
	above  int64
	drawn  int64 // the next floor, perhaps
	id     int64 // once all transactions before this one have ended
	server time.Time
	looked time.Time // the last look at everything
}

// from returns the number above which the next look begins.
func (f *floor) from(now time.Time) int64 {
	if now.Sub(f.looked) > floorDoubt {
		f.looked = now
		return 0
	}
	return f.above
}

// moved takes note of a committed move of some rows, the last of them seq, that looked at all there were (unless it was bounded), and
// whose transaction had that id.
func (f *floor) moved(t outboxdb.RelayTurnRow, bounded bool, seq, id int64) {
	if !t.ServerStart.Equal(f.server) || t.Drawn < f.above {
		// Another server, which may know of less: what was true of the old one is not of this.
		*f = floor{server: t.ServerStart}
	}
	if f.id != 0 && t.RunningFrom >= f.id {
		if bounded && seq < f.drawn {
			f.above = max(f.above, seq)
			return
		}
		f.above, f.id = max(f.above, f.drawn), 0
	}
	if f.id == 0 && id != 0 {
		f.drawn, f.id = t.Drawn, id
	}
}
