package outbox

import (
	"slices"
	"time"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// wakeSpacing is how close two wake-ups of a lane may follow under load: a drain that begins a little later finds
	// more. Under little load, what matters is that it begins at once.
	wakeSpacing      = 50 * time.Millisecond
	wakeSpacingQuiet = time.Millisecond
	// While the relay moves full batches, it works off a backlog, and drains would only get in its way: a lane is woken when
	// it has a batch of its own together, or after wakeBacklog.
	wakeBacklog = 500 * time.Millisecond
	// wakeBusy is how long after a full batch there is load. wakeHolds is how long a lane that is to be woken for settled
	// holds alone waits then: most likely it is woken for new events in the meantime, and sees the holds. And as
	// seldom the holds are looked at.
	wakeBusy  = 100 * time.Millisecond
	wakeHolds = 250 * time.Millisecond
	// wakeRoom is when one that found no room is tried again.
	wakeRoom = 20 * time.Millisecond
	// wakeAgain is after how long a lane that is still behind is woken again, and wakeSweep how often that is asked.
	wakeAgain = 2 * time.Second
	wakeSweep = time.Second
	// wakeAll is how often all lanes are looked at. Those with nothing ahead of their cursors that their consumer wants are
	// woken, too, so that the cursors pass it, but one after the other over that time: after a new relay has taken the lead
	// they are most of all there are, and work would wait behind them.
	wakeAll = 30 * time.Second
	// wakeLook is how many events at the end of the log that look reads: a lane whose cursor is not among them is woken.
	wakeLook = 10_000
)

// wakes knows which lanes have work and when they were last told. It is the memory of the leading relay and may be
// lost at any time: a new leader takes every lane that is behind for one that was never woken.
//
// Wake-ups go by state and not by occurrence: a lane is due while something is ahead of its cursor.
// One too many finds the lane's lock taken, or nothing to do, and ends.
type wakes struct {
	heads       [Lanes]int64
	consumers   []consumerRow
	known       map[string]outboxdb.ConsumerListRow // by name
	consumersAt time.Time
	lanes       map[Lane]*laneWake
	sweptAt     time.Time
	allAt       time.Time
	busyAt      time.Time // the last batch of a size that tells of load
	backlog     bool      // the relay's last batch was full
	settledAt   time.Time // the last look at the settled holds
}

type consumerRow struct {
	name     string
	patterns []string
	paused   bool
}

type laneWake struct {
	ready     int64     // something may be wanted up to here
	confirmed int64     // the cursor was seen here or beyond
	wanted    bool      // what is ready is known to be wanted; else that is to be found out before the lane is woken for it
	woken     int64     // what was ready at the last wake-up
	unwoken   int64     // events since then
	unwokenAt time.Time // the first of them
	wokenAt   time.Time
	wokeNews  bool      // it was for something new, and not for settled holds alone
	since     time.Time // the first wake-up after the last confirmation
	settledAt time.Time // the newest settled hold that was seen
	poke      bool      // wake also if nothing new is ready
	pokeFrom  time.Time // but not before
	delayed   time.Time // when a wake-up for settled holds alone was first put off, for want of room
	behind    bool      // it was seen behind some time after a wake-up, and has not been seen caught up since
	queued    bool      // a wake-up that nobody has taken up for a while is in the queue: another brings nothing
}

func newWakes() *wakes {
	return &wakes{lanes: map[Lane]*laneWake{}, known: map[string]outboxdb.ConsumerListRow{}}
}

func (w *wakes) lane(l Lane) *laneWake {
	s := w.lanes[l]
	if s == nil {
		s = &laneWake{}
		w.lanes[l] = s
	}
	return s
}

func (w *wakes) setConsumers(now time.Time, rows []outboxdb.ConsumerListRow) {
	w.consumersAt = now
	w.consumers = w.consumers[:0]
	known := map[string]outboxdb.ConsumerListRow{}
	for _, r := range rows {
		known[r.Name] = r
		if was := w.known[r.Name]; !slices.Equal(was.Patterns, r.Patterns) || !was.CreatedAt.Equal(r.CreatedAt) {
			// It, or a subscription of it, is new: what it wants may have appeared already. It may also be new under a name that another had.
			w.allAt = time.Time{}
			for l, s := range w.lanes {
				if l.Consumer == r.Name {
					s.confirmed = 0 // what was not wanted may be now
				}
			}
		}
		w.consumers = append(w.consumers, consumerRow{r.Name, r.Patterns, r.PausedAt != nil})
	}
	w.known = known
	for l := range w.lanes {
		if _, ok := known[l.Consumer]; !ok {
			delete(w.lanes, l)
		}
	}
}

// appeared notes so many new events of a type in a lane, the last of them at pos.
func (w *wakes) appeared(now time.Time, lane int16, eventType string, pos, events int64) {
	w.heads[lane] = max(w.heads[lane], pos)
	for _, c := range w.consumers {
		for _, p := range c.patterns {
			if matches(p, eventType) {
				s := w.lane(Lane{c.name, lane})
				s.ready, s.wanted = max(s.ready, pos), true
				if s.unwoken == 0 {
					s.unwokenAt = now
				}
				s.unwoken += events
				break
			}
		}
	}
}

// settled notes that a lane has settled holds, the newest of them settled at.
func (w *wakes) settled(now time.Time, l Lane, at time.Time) {
	s := w.lane(l)
	if at.After(s.settledAt) || now.Sub(s.wokenAt) > wakeAgain {
		s.settledAt = at
		from := now
		if w.busy(now) {
			from = now.Add(wakeHolds)
		}
		s.wake(from)
	}
}

func (w *wakes) busy(now time.Time) bool { return now.Sub(w.busyAt) < wakeBusy }

// looksForSettled reports whether it is time to look for lanes with settled holds.
func (w *wakes) looksForSettled(now time.Time) bool {
	if w.busy(now) && now.Sub(w.settledAt) < wakeHolds/2 {
		return false
	}
	w.settledAt = now
	return true
}

// delay puts off a wake-up that due has just returned, if it is for settled holds alone and not for long yet, and
// reports whether it did: a job for each would cost more than the wait.
func (w *wakes) delay(l Lane) bool {
	s := w.lane(l)
	switch {
	case s.wokeNews:
		return false
	case s.delayed.IsZero():
		s.delayed = s.wokenAt
	case s.wokenAt.Sub(s.delayed) > wakeHolds:
		s.delayed = time.Time{}
		return false
	}
	s.wake(s.wokenAt.Add(wakeRoom))
	return true
}

// unconfirmed returns what may still be ahead of cursors some time after its last wake-up, at most once a wakeSweep.
func (w *wakes) unconfirmed(now time.Time) map[Lane]int64 {
	if now.Sub(w.allAt) > wakeAll {
		w.allAt = now
		for _, s := range w.lanes {
			s.confirmed = 0 // a crash, of which a pooler may have let nobody know, can have put a cursor back
		}
		for _, c := range w.consumers {
			for lane, head := range w.heads {
				if head > 0 {
					if s := w.lane(Lane{c.name, int16(lane)}); s.ready < head {
						s.ready, s.wanted = head, s.news()
					}
				}
			}
		}
	}
	if now.Sub(w.sweptAt) < wakeSweep {
		return nil
	}
	w.sweptAt = now
	ready := map[Lane]int64{}
	for l, s := range w.lanes {
		if s.ready > s.confirmed && (now.Sub(s.wokenAt) > wakeAgain || !s.since.IsZero() && now.Sub(s.since) > wakeAgain) {
			ready[l] = s.ready
		}
	}
	return ready
}

// passes notes that of what is ahead of the cursors of these lanes nothing is wanted: they take turns in passing it.
func (w *wakes) passes(now time.Time, ready map[Lane]int64) {
	turn := wakeAll / time.Duration(max(1, len(ready)))
	from := now
	for l, pos := range ready {
		w.confirm(l, pos)
		if s := w.lane(l); !s.poke {
			from = from.Add(turn)
			s.wake(from)
		}
	}
}

// again notes that a lane is still behind what is wanted, and whether it has a wake-up in the queue that nobody takes up.
func (w *wakes) again(now time.Time, l Lane, queued bool) {
	s := w.lane(l)
	s.queued, s.behind, s.wanted = queued, true, true
	switch {
	case queued:
		s.poke = false
	case s.poke || now.Sub(s.wokenAt) > wakeAgain:
		s.wake(now)
	}
}

// setBack notes that a lane's cursor was set back.
func (w *wakes) setBack(now time.Time, l Lane, queued bool) {
	w.lane(l).confirmed = 0
	w.again(now, l, queued)
}

// confirm notes that a lane's cursor is at pos or beyond.
func (w *wakes) confirm(l Lane, pos int64) {
	s := w.lane(l)
	s.confirmed, s.wanted, s.queued, s.behind, s.since = max(s.confirmed, pos), false, false, false, time.Time{}
}

// fresh reports whether what the lane is woken for has come since it was last seen behind. Before a first look, any lane
// may be.
func (w *wakes) fresh(l Lane) bool { return !w.sweptAt.IsZero() && !w.lane(l).behind }

// wake has the lane woken from then on, also if nothing new is ready. What was to come later comes then: a lane that has only to pass what
// nobody wants can have half a minute's time, and what else it is found to have to do must not wait for that.
func (s *laneWake) wake(from time.Time) {
	if !s.poke || s.pokeFrom.After(from) {
		s.poke, s.pokeFrom = true, from
	}
}

func (s *laneWake) wants() bool { return !s.queued && (s.poke || s.news()) }
func (s *laneWake) news() bool  { return s.wanted && s.ready > max(s.woken, s.confirmed) }

// from is when a lane that wants to be woken may be.
func (w *wakes) from(s *laneWake, now time.Time) time.Time {
	spacing := wakeSpacingQuiet
	if w.busy(now) {
		spacing = wakeSpacing
	}
	from := s.wokenAt.Add(spacing)
	switch {
	case s.news() && w.backlog && s.unwoken < drainBatch && s.unwokenAt.Add(wakeBacklog).After(from):
		return s.unwokenAt.Add(wakeBacklog)
	case s.news() || s.pokeFrom.Before(from):
		return from
	}
	return s.pokeFrom
}

// due returns the lanes to wake now and takes them for woken.
func (w *wakes) due(now time.Time) []Lane {
	var due []Lane
	for l, s := range w.lanes {
		if s.wants() && !now.Before(w.from(s, now)) && !w.paused(l.Consumer) {
			s.wokeNews = s.news()
			s.woken, s.wokenAt, s.poke, s.pokeFrom, s.unwoken = s.ready, now, false, time.Time{}, 0
			if s.since.IsZero() {
				s.since = now
			}
			due = append(due, l)
		}
	}
	return due
}

// forget takes back what due returned, when the wake-ups were not committed.
func (w *wakes) forget(lanes []Lane) {
	for _, l := range lanes {
		if s := w.lanes[l]; s != nil {
			s.woken = 0
			s.wake(s.wokenAt)
		}
	}
}

// next is how long until the next lane is due.
func (w *wakes) next(now time.Time) time.Duration {
	next := wakeSweep
	for l, s := range w.lanes {
		if s.wants() && !w.paused(l.Consumer) {
			next = min(next, max(0, w.from(s, now).Sub(now)))
		}
	}
	return next
}

func (w *wakes) paused(consumer string) bool {
	for _, c := range w.consumers {
		if c.name == consumer {
			return c.paused
		}
	}
	return true
}
