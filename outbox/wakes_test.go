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
		w.appeared(7, "note.taken", int64(i+1))
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
	w.appeared(7, "note.taken", 3001)
	now = now.Add(time.Second)
	require.Len(t, w.due(now), 1)
}
