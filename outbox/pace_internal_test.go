package outbox

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Whose events take long for other reasons than the database's does not give way, and nobody does for long after the last full batch, or the
// last writer.
func TestWhoGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &Engine{}
		full := func() {
			e.paceOf("c").large(true)
			e.writtenAt.Store(time.Now().UnixNano())
		}
		full()
		require.True(t, e.GivesWay("c"))
		require.False(t, e.GivesWay("d"))
		e.paceOf("c").large(false)
		require.True(t, e.GivesWay("c"))
		<-time.After(paceBacklog)
		require.False(t, e.GivesWay("c"), "the backlog is over")

		full()
		<-time.After(writersFor)
		e.paceOf("c").large(true)
		require.False(t, e.GivesWay("c"), "nobody writes")

		full()
		for range 4 {
			e.paceOf("c").took(drainChunk, 2*paceSlow*drainChunk)
		}
		require.False(t, e.GivesWay("c"), "it is slow")
	})
}
