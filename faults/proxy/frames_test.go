package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

func message(typ byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4))
	return append(b, body...)
}

// However the bytes are cut into reads, the same messages are seen and the same bytes pass.
func TestFramesInAnyPieces(t *testing.T) {
	t.Parallel()
	coin := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		var stream, want []byte
		var wantSeen, seen []string
		for range 1 + coin.IntN(20) {
			typ := "ACDZ"[coin.IntN(4)]
			size := coin.IntN(40)
			if coin.IntN(10) == 0 {
				size = coin.IntN(200_000)
			}
			body := bytes.Repeat([]byte{'A', 0, 0, 0, 4}, size/5+1)[:size]
			stream = append(stream, message(typ, body)...)
			wantSeen = append(wantSeen, string(typ)+string(body[:min(size, 8)]))
			if typ != 'A' {
				want = append(want, message(typ, body)...)
			}
		}
		f := &frames{
			typed: true,
			looks: func(byte) int { return 8 },
			judge: func(typ byte, body []byte) verdict {
				seen = append(seen, string(typ)+string(body))
				if typ == 'A' {
					return drop
				}
				return pass
			},
		}
		var got, again []byte
		most := 1 + coin.IntN(70_000)
		if round%3 == 0 {
			most = 3
		}
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+coin.IntN(most))
			piece := append(bytes.Clone(again), rest[:n]...)
			rest = rest[n:]
			forward, kept, v, err := f.scan(piece)
			if v != pass || err != nil {
				t.Fatal(v, err)
			}
			if len(kept) > 13 {
				t.Fatalf("%d bytes are held back", len(kept))
			}
			got, again = append(got, forward...), bytes.Clone(kept)
		}
		if len(again) > 0 || !bytes.Equal(got, want) {
			t.Fatalf("round %d: %d bytes passed of %d, %d are left", round, len(got), len(want), len(again))
		}
		if len(seen) != len(wantSeen) {
			t.Fatalf("round %d: %d messages seen of %d", round, len(seen), len(wantSeen))
		}
		for i := range seen {
			if seen[i] != wantSeen[i] {
				t.Fatalf("round %d, message %d: %q, not %q", round, i, seen[i], wantSeen[i])
			}
		}
	}
}

func TestFramesCut(t *testing.T) {
	t.Parallel()
	f := &frames{typed: true, looks: func(byte) int { return 0 }, judge: func(typ byte, _ []byte) verdict {
		if typ == 'C' {
			return cut
		}
		return pass
	}}
	before := message('D', []byte("row"))
	forward, again, v, err := f.scan(append(append(bytes.Clone(before), message('C', []byte("x"))...), before...))
	if !bytes.Equal(forward, before) || len(again) > 0 || v != cut || err != nil {
		t.Errorf("%q, %q, %v, %v", forward, again, v, err)
	}
	f = &frames{typed: true}
	if _, _, _, err := f.scan([]byte{'D', 0, 0, 0, 3}); !errors.Is(err, errUnreadable) {
		t.Errorf("a length below its own: %v", err)
	}
}

func TestHasListen(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]bool{
		"LISTEN c":                         true,
		"listen \"c\"\x00":                 true,
		"SELECT 1; LISTEN c":               true,
		"-- name: Listen :exec\nLISTEN c":  true,
		"SELECT 'listen'":                  false,
		"UNLISTEN *":                       false,
		"-- listen c":                      false,
		"":                                 false,
		"INSERT INTO t VALUES ('LISTEN');": false,
	} {
		if got := hasListen([]byte(sql)); got != want {
			t.Errorf("%q: %t", sql, got)
		}
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	coin := rand.New(rand.NewPCG(1, 1))
	m := modes{latency: 10 * time.Millisecond, jitter: 4 * time.Millisecond}
	shortest, longest := time.Hour, time.Duration(0)
	for range 1000 {
		d := m.delay(coin)
		shortest, longest = min(shortest, d), max(longest, d)
	}
	if shortest < 6*time.Millisecond || longest > 14*time.Millisecond || longest-shortest < 6*time.Millisecond {
		t.Errorf("%v to %v", shortest, longest)
	}
	if d := (modes{latency: 1, jitter: time.Hour}).delay(coin); d < 0 {
		t.Error(d)
	}
}
