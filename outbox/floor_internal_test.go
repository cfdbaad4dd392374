package outbox

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

func TestFloor(t *testing.T) {
	t.Parallel()
	server := time.Unix(1_700_000_000, 0)
	turn := func(drawn, runningFrom int64) outboxdb.RelayTurnRow {
		return outboxdb.RelayTurnRow{Drawn: drawn, RunningFrom: runningFrom, ServerStart: server}
	}
	f := &floor{}
	f.moved(turn(10, 100), false, 10, 105) // numbers up to 10 are drawn; all of them by transactions before 105
	require.Zero(t, f.above)
	f.moved(turn(20, 104), false, 20, 110) // 104 still runs
	require.Zero(t, f.above)
	f.moved(turn(30, 105), false, 30, 120)
	require.Equal(t, int64(10), f.above)

	// The next one is asked for at once; a move that found more than it took has not passed all of it.
	f.moved(turn(40, 120), true, 25, 130)
	require.Equal(t, int64(25), f.above)
	f.moved(turn(50, 130), false, 50, 140)
	require.Equal(t, int64(30), f.above)

	now := time.Unix(1_700_000_100, 0)
	require.Zero(t, f.from(now), "a first look is at everything")
	require.Equal(t, int64(30), f.from(now.Add(floorDoubt)))
	require.Zero(t, f.from(now.Add(floorDoubt+time.Second)))

	// Another server, or one whose sequence was set back.
	other := *f
	elsewhere := turn(60, 200)
	elsewhere.ServerStart = server.Add(time.Hour)
	other.moved(elsewhere, false, 60, 210)
	require.Zero(t, other.above)
	f.moved(turn(5, 200), false, 5, 210)
	require.Zero(t, f.above)
}
