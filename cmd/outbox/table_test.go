package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTableFits(t *testing.T) {
	t.Parallel()
	tall := table("ID", "KEY", "STATE", "ERROR")
	tall.row(7, strings.Repeat("k", 60), "dead", "no account for anybody of that name")
	tall.row(8, "鍵鍵鍵", "dead", "e\u0301tat")
	require.Equal(t, []string{
		"ID  KEY" + strings.Repeat(" ", 59) + "STATE  ERROR",
		"7   " + strings.Repeat("k", 60) + "  dead   no account for anybody of that name",
		"8   鍵鍵鍵" + strings.Repeat(" ", 56) + "dead   e\u0301tat",
	}, tall.layout(0), "what is no terminal gets all of it")
	require.Equal(t, []string{
		"ID  KEY               STATE  ERROR",
		"7   kkkkkkkkkkkkkkk…  dead   no account for…",
		"8   鍵鍵鍵            dead   e\u0301tat",
	}, tall.layout(44), "the widest columns give way, and the state is to be seen")
	for terminal := 1; terminal < 130; terminal++ {
		for _, line := range tall.layout(terminal) {
			require.LessOrEqual(t, textWidth(line), terminal)
		}
	}
	require.Equal(t, "鍵鍵…", cut("鍵鍵鍵", 5))
	require.Equal(t, "鍵鍵鍵", cut("鍵鍵鍵", 6))
	require.Equal(t, "…", cut("ab", 1))
}

// What comes from outside reaches no terminal in a form that it would obey.
func TestNothingIsObeyed(t *testing.T) {
	t.Parallel()
	const evil = "a\x1b[31mb\u009b2Jc\x7fd\ne\tf\u202eg\u2028h\xff"
	said := printable(evil)
	require.Equal(t, "a [31mb 2Jc d e f g h\uFFFD", said)
	var out bytes.Buffer
	p := &printer{w: &out}
	p.line("key %s", evil)
	cells := table("KEY")
	cells.row(evil)
	p.table(cells)
	require.Equal(t, "key "+said+"\nKEY\n"+said+"\n", out.String())

	out.Reset()
	require.NoError(t, printJSON(&out, map[string]any{"key": evil[:len(evil)-1], "data": json.RawMessage("\"\u009b\u202e\"")}))
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
	require.NotContains(t, strings.TrimRight(out.String(), "\n"), "\u009b")
	require.Equal(t, printable(strings.TrimRight(out.String(), "\n")), strings.TrimRight(out.String(), "\n"))
	var back struct{ Key, Data string }
	require.NoError(t, json.Unmarshal(out.Bytes(), &back))
	require.Equal(t, evil[:len(evil)-1], back.Key)
	require.Equal(t, "\u009b\u202e", back.Data)

	out.Reset()
	complain(&out, usage("outbox: one\x1b[2J\ntwo"))
	require.Equal(t, "outbox: one [2J\ntwo\n", out.String())
}

func TestBar(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := &bar{w: &out, width: 50}
	b.draw(1, 4, "running")
	b.draw(2, 4, "running") // a moment later
	b.drawn = b.drawn.Add(-time.Minute)
	b.draw(9, 4, "\x1b[31mtoo much")
	b.end()
	require.Equal(t, "\r\x1b[K[=======                       ] 1/4 running\r\x1b[K["+strings.Repeat("=", 30)+"] 9/4  [31mtoo mu…\n", out.String())
	out.Reset()
	b = &bar{w: &out}
	b.draw(4, 4, "done")
	b.end()
	require.Empty(t, out.String(), "nobody looks")
}
