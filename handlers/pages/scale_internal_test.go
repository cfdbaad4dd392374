package pages

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestScaleKeepsWhatHappenedLarge(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	until := from.Add(4 * time.Second)

	closed := newScale(from, until, until.Add(time.Hour), false)
	require.Equal(t, percent(scaleLeft), closed.at(from))
	require.Equal(t, percent(scaleRight), closed.at(until))
	require.False(t, closed.broken)

	long := newScale(from, until, until.Add(48*time.Hour), true)
	require.True(t, long.broken)
	require.Equal(t, percent(scaleBreak), long.at(until), "what happened keeps its room, however long ago it was")
	require.Equal(t, percent(scaleRight), long.at(until.Add(48*time.Hour)))
	ticks := long.ticks()
	require.Equal(t, "now", ticks[len(ticks)-1].Label)
	require.Equal(t, "+1 s", ticks[1].Label)

	soon := newScale(from, until, until.Add(100*time.Millisecond), true)
	require.False(t, soon.broken)
	require.Equal(t, percent(scaleRight), soon.at(until.Add(100*time.Millisecond)))

	moment := newScale(from, from, from, false)
	require.Equal(t, percent(scaleLeft), moment.at(from), "a timeline of one moment has a length all the same")
	require.Equal(t, percent(scaleLeft), moment.at(from.Add(-time.Hour)))
}

func TestWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0 ms", 300 * time.Microsecond: "0 ms", 12 * time.Millisecond: "12 ms", 1500 * time.Millisecond: "1.5 s", 42 * time.Second: "42 s",
		61 * time.Second: "1 min 1 s", time.Hour: "1 h", 26*time.Hour + 5*time.Minute: "1 d 2 h", -time.Second: "-1.0 s",
	} {
		require.Equal(t, want, span(d))
	}
	rate := 3.25
	for in, want := range map[any]string{0: "0", 999: "999", int64(1000): "1\u202f000", 1234567: "1\u202f234\u202f567", -1000: "-1\u202f000", 0.5: "0.5", 12.6: "13"} {
		require.Equal(t, want, number(in))
	}
	require.Equal(t, "3.2", number(&rate))
	require.Equal(t, "{\n  \"a\": 1.10\n}", pretty([]byte(`{"a":1.10}`)), "a number stays as it was written")
	require.Equal(t, "one", firstLine("\none\ntwo"))
}

// A guesser from many addresses cannot make the table of guessers grow without end.
func TestGuessesAreBounded(t *testing.T) {
	t.Parallel()
	var g guesses
	for i := range 3 * maxGuessers {
		g.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String())
	}
	require.LessOrEqual(t, len(g.by), maxGuessers+1)
	g = guesses{}
	for range guessBurst {
		require.True(t, g.allow("2001:db8::1"))
	}
	require.False(t, g.allow("2001:db8::ffff:2"), "one network, one guesser")
	require.True(t, g.allow("2001:db8:0:1::1"))
}
