package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// admissionEvery is how often an Admission looks, at most, and admissionTime for how long it waits for the answer.
	admissionEvery = time.Second
	admissionTime  = time.Second
	// admissionForgets is for how long what was seen last stands while the database does not answer.
	admissionForgets = 10 * time.Second
	// aheadStale is how old what a relay keeps may be to be believed: a relay that leads keeps it every five seconds.
	aheadStale = 30 * time.Second
)

// Backlog is what an Admission has seen.
type Backlog struct {
	// Age is for how long the oldest event has been on its way to a consumer that could take it.
	Age time.Duration
	// Consumer is whose that event is; "" where it has not even been relayed.
	Consumer string
	// Refuses says that this is too long.
	Refuses bool
}

// Admission says whether new work should be let in, or whether what is there already waits for too long. It goes by the age of the oldest
// event ahead of a consumer's cursor, counted from when that came into the log, and of the oldest that is not relayed. Events that are held,
// wait behind such, are dead or not due do not count, nor does a consumer that is paused or in a backfill: one poisoned event must not close
// the shop. What piled up before a consumer was registered, resumed or done with a backfill counts from then.
//
// It looks when it is asked and has not looked for a second. What it sees of consumers the leading relay keeps every five seconds, and what is
// worked off entirely within one. It is a valve and no promise: where it cannot look, it lets in. It is safe for concurrent use.
type Admission struct {
	o       *Operator
	maxAge  time.Duration
	every   time.Duration
	forgets time.Duration
	log     *slog.Logger

	mu      sync.Mutex
	looking bool
	asked   time.Time // when the last look began
	seen    time.Time // when one last succeeded
	behind  bool      // the relay was, at the last look
	failing bool
	last    Backlog
}

// NewAdmission returns an admission that refuses while the oldest event is older than maxAge, which is above 0. The logger is told when it
// begins to refuse, and when it ends; nil: nobody is.
func NewAdmission(o *Operator, maxAge time.Duration, logger *slog.Logger) (*Admission, error) {
	if maxAge <= 0 {
		return nil, fmt.Errorf("outbox: the greatest age of an admission must be above 0, and is %s", maxAge)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Admission{o: o, maxAge: maxAge, every: admissionEvery, forgets: admissionForgets, log: logger}, nil
}

// Backlog returns what was last seen, or looks first. Only one caller at a time looks: the others go by what is known.
func (a *Admission) Backlog(ctx context.Context) Backlog {
	a.mu.Lock()
	if a.looking || time.Since(a.asked) < a.every {
		defer a.mu.Unlock()
		return a.last
	}
	a.looking, a.asked = true, time.Now()
	a.mu.Unlock()

	// The look is everybody's, and not only that of the caller, who may leave.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), admissionTime)
	defer cancel()
	var row outboxdb.StatsAheadRow
	err := a.o.look(ctx, admissionTime, func(b *pgx.Batch) {
		queueRow(b, &row, a.o.schema.sql(outboxdb.StatsAhead), aheadStale.Seconds())
	})

	a.mu.Lock()
	defer a.mu.Unlock()
	a.looking = false
	before := a.last
	a.take(row, err)
	a.tell(before, err)
	return a.last
}

// take takes note of what a look saw.
func (a *Admission) take(row outboxdb.StatsAheadRow, err error) {
	if err != nil {
		if time.Since(a.seen) > a.forgets {
			a.last, a.behind = Backlog{}, false
		}
		return
	}
	a.seen = time.Now()
	a.last = Backlog{Age: max(0, seconds(row.AheadSeconds)), Consumer: row.Consumer}
	a.last.Refuses = a.last.Age > a.maxAge
	// A row is as old as its transaction when that commits: that there is an old one tells nothing until there is one at the next look, too.
	waits := seconds(row.OutboxSeconds)
	if waits > a.last.Age {
		refuses := waits > a.maxAge && a.behind
		if refuses || !a.last.Refuses {
			a.last = Backlog{Age: waits, Refuses: refuses}
		}
	}
	a.behind = waits > a.maxAge
}

// tell says what has changed.
func (a *Admission) tell(before Backlog, err error) {
	switch {
	case a.last.Refuses && !before.Refuses:
		a.log.Warn("admission: new work is refused until what is there is worked off", "age_seconds", a.last.Age.Seconds(), "consumer", a.last.Consumer)
	case !a.last.Refuses && before.Refuses:
		a.log.Info("admission: new work is taken again", "age_seconds", a.last.Age.Seconds())
	}
	if failing := err != nil; failing != a.failing { // one line an outage
		a.log.Warn("admission: the look at the backlog", "answered", !failing, "error", err)
		a.failing = failing
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
