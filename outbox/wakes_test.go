package outbox

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// A consumer that no process works, under a steady stream of events: its queue must not fill with wake-ups.
func TestLaneThatNobodyWorksIsNotWokenForEver(t *testing.T) {
	t.Parallel()
	w := newWakes()
	now := time.Unix(1_800_000_000, 0)
	w.setConsumers(now, []outboxdb.ConsumerListRow{{Name: "gone", Patterns: []string{"note.*"}}})
	lane, given := Lane{"gone", 7}, 0
	var queuedSince time.Time
	for i := range 60 * 50 { // a minute, an event every 20 ms
		now = now.Add(20 * time.Millisecond)
		w.appeared(now, 7, "note.taken", int64(i+1), 1)
		for range w.unconfirmed(now) {
			w.again(now, lane, !queuedSince.IsZero() && now.Sub(queuedSince) > 2*time.Second)
		}
		if n := len(w.due(now)); n > 0 {
			given += n
			if queuedSince.IsZero() {
				queuedSince = now
			}
		}
	}
	require.NotZero(t, given)
	require.Less(t, given, 200, "wake-ups stop when one lies untouched")

	// Somebody takes it up: the lane is woken for every new event again.
	w.confirm(lane, 3000)
	w.appeared(now, 7, "note.taken", 3001, 1)
	now = now.Add(time.Second)
	require.Len(t, w.due(now), 1)
}

// While the relay works off a backlog a lane waits until it has a batch together, but not for long.
func TestLanesWaitWhileTheRelayWorksOffABacklog(t *testing.T) {
	t.Parallel()
	w := newWakes()
	now := time.Unix(1_800_000_000, 0)
	w.setConsumers(now, []outboxdb.ConsumerListRow{{Name: "c", Patterns: []string{"*"}}})
	w.backlog = true
	w.appeared(now, 7, "note.taken", 10, 10)
	w.appeared(now, 8, "note.taken", drainBatch, drainBatch)
	require.Equal(t, []Lane{{"c", 8}}, w.due(now))
	require.Equal(t, wakeBacklog, w.next(now))
	require.Empty(t, w.due(now.Add(wakeBacklog-1)))
	require.Equal(t, []Lane{{"c", 7}}, w.due(now.Add(wakeBacklog)))

	w.appeared(now.Add(time.Second), 7, "note.taken", 20, 1)
	require.Empty(t, w.due(now.Add(time.Second)))
	w.backlog = false
	require.Len(t, w.due(now.Add(time.Second)), 1)
}

// Lanes whose cursors have to pass what nobody wants take turns, and one that gets something wanted meanwhile does not wait.
func TestLanesPassWhatNobodyWantsInTurn(t *testing.T) {
	t.Parallel()
	w := newWakes()
	now := time.Unix(1_800_000_000, 0)
	w.setConsumers(now, []outboxdb.ConsumerListRow{{Name: "c", Patterns: []string{"note.*"}}})
	for lane := range w.heads {
		w.heads[lane] = 10
	}
	ready := w.unconfirmed(now)
	require.Len(t, ready, Lanes)
	w.passes(now, ready)
	require.Empty(t, w.due(now))

	w.appeared(now, 7, "note.taken", 11, 1)
	require.Equal(t, []Lane{{"c", 7}}, w.due(now))
	passed, most := 0, 0
	for at := now; at.Before(now.Add(wakeAll)); at = at.Add(wakeSweep) {
		n := len(w.due(at.Add(wakeSweep)))
		passed, most = passed+n, max(most, n)
	}
	require.Equal(t, Lanes-1, passed)
	require.LessOrEqual(t, most, 4)
}

// What waits behind a settled hold, or behind a cursor that was set back, does not wait for its lane's turn to pass what nobody wants.
func TestLaneThatIsToPassIsWokenForWork(t *testing.T) {
	t.Parallel()
	for name, work := range map[string]func(*wakes, time.Time, Lane){
		"settled":  func(w *wakes, now time.Time, l Lane) { w.settled(now, l, now) },
		"set back": func(w *wakes, now time.Time, l Lane) { w.setBack(now, l, false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWakes()
			now := time.Unix(1_800_000_000, 0)
			w.setConsumers(now, []outboxdb.ConsumerListRow{{Name: "c", Patterns: []string{"rare"}}})
			for lane := range w.heads {
				w.heads[lane] = 10
			}
			w.passes(now, w.unconfirmed(now))
			now = now.Add(time.Millisecond)
			require.Empty(t, w.due(now))
			for lane := range w.heads {
				work(w, now, Lane{"c", int16(lane)})
			}
			require.Len(t, w.due(now), Lanes)
		})
	}
}

// What is not known to be wanted is found out, also where the first try fails, and again when the consumer wants more.
func TestLanesOfWhichNothingIsKnownAreLookedAt(t *testing.T) {
	t.Parallel()
	w := newWakes()
	now := time.Unix(1_800_000_000, 0)
	wants := func(patterns ...string) {
		w.setConsumers(now, []outboxdb.ConsumerListRow{{Name: "c", Patterns: patterns}})
	}
	wants("rare")
	lane := Lane{"c", 7}
	w.heads[lane.Lane] = 10
	for range 2 { // nothing comes of the first
		require.Contains(t, w.unconfirmed(now), lane)
		require.Empty(t, w.due(now))
		now = now.Add(wakeSweep)
	}
	w.passes(now, map[Lane]int64{lane: 10})
	now = now.Add(wakeSweep)
	require.Empty(t, w.unconfirmed(now))

	wants("rare", "note.*")
	now = now.Add(wakeSweep)
	require.Contains(t, w.unconfirmed(now), lane)
	require.Empty(t, w.due(now))

	w.appeared(now, lane.Lane, "note.taken", 11, 1)
	require.Equal(t, []Lane{lane}, w.due(now))
}

// A consumer that was removed and made again between two looks may begin anywhere: what was known of its lanes was the other's.
func TestConsumersOfTheSameNameAreToldApart(t *testing.T) {
	t.Parallel()
	w := newWakes()
	now := time.Unix(1_800_000_000, 0)
	made := func(at time.Time) {
		w.setConsumers(now, []outboxdb.ConsumerListRow{{Name: "c", Patterns: []string{"note.*"}, CreatedAt: at}})
	}
	lane := Lane{"c", 7}
	made(now)
	w.appeared(now, lane.Lane, "note.taken", 10, 1)
	require.Equal(t, []Lane{lane}, w.due(now))
	w.confirm(lane, 10)
	now = now.Add(2 * wakeAgain)
	require.Contains(t, w.unconfirmed(now), lane) // as all lanes are now and then
	w.confirm(lane, 10)
	made(w.known["c"].CreatedAt)
	now = now.Add(wakeSweep)
	require.Empty(t, w.unconfirmed(now))
	made(now)
	now = now.Add(wakeSweep)
	require.Contains(t, w.unconfirmed(now), lane)
}

// A wake-up for settled holds alone that finds no room waits for some, but not for long; one for news does not.
func TestWakeUpsForHoldsAlonePutOff(t *testing.T) {
	t.Parallel()
	w := newWakes()
	now := time.Unix(1_800_000_000, 0)
	w.setConsumers(now, []outboxdb.ConsumerListRow{{Name: "c", Patterns: []string{"*"}}})
	lane := Lane{"c", 7}
	w.settled(now, lane, now)
	tries := 0
	for at := now; ; at = at.Add(wakeRoom) {
		if len(w.due(at)) == 0 {
			continue
		}
		if tries++; !w.delay(lane) {
			require.LessOrEqual(t, at.Sub(now), wakeHolds+2*wakeRoom)
			break
		}
	}
	require.Greater(t, tries, 2)

	w.appeared(now.Add(time.Minute), 7, "note.taken", 1, 1)
	require.Len(t, w.due(now.Add(time.Minute)), 1)
	require.False(t, w.delay(lane))
}

// A cursor that was seen caught up can have been put back by a crash that nobody was told of: it is looked at again.
func TestLanesThatWereCaughtUpAreLookedAtAgain(t *testing.T) {
	t.Parallel()
	w := newWakes()
	now := time.Unix(1_800_000_000, 0)
	w.setConsumers(now, []outboxdb.ConsumerListRow{{Name: "c", Patterns: []string{"note.*"}}})
	lane := Lane{"c", 7}
	w.unconfirmed(now)
	w.appeared(now, 7, "note.taken", 10, 1)
	require.Len(t, w.due(now), 1)
	w.confirm(lane, 10)
	require.Empty(t, w.unconfirmed(now.Add(wakeAll-wakeSweep)))
	now = now.Add(wakeAll + time.Second)
	require.Equal(t, map[Lane]int64{lane: 10}, w.unconfirmed(now))
	w.again(now, lane, false)
	require.Equal(t, []Lane{lane}, w.due(now))
}
