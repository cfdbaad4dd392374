package pages

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// clock is a time for people, in UTC.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") }

// span is a duration for people, in two units at most.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + span(-d)
	case d < time.Millisecond:
		return "0 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return units(int(d.Minutes()), "min", int(d.Seconds())%60, "s")
	case d < 24*time.Hour:
		return units(int(d.Hours()), "h", int(d.Minutes())%60, "min")
	}
	return units(int(d.Hours())/24, "d", int(d.Hours())%24, "h")
}

func units(large int, a string, small int, b string) string {
	if small == 0 {
		return fmt.Sprintf("%d %s", large, a)
	}
	return fmt.Sprintf("%d %s %d %s", large, a, small, b)
}

// number groups a number's digits: a million is told from ten of them at a glance.
func number(n any) string {
	s := fmt.Sprint(n)
	if p, ok := n.(*float64); ok {
		n = *p
	}
	if f, ok := n.(float64); ok {
		s = strconv.FormatFloat(f, 'f', 0, 64)
		if f > 0 && f < 10 {
			return strconv.FormatFloat(f, 'f', 1, 64)
		}
	}
	digits := strings.TrimPrefix(s, "-")
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "\u202f" + digits[at:]
	}
	if strings.HasPrefix(s, "-") {
		return "-" + digits
	}
	return digits
}

var stateNames = map[string]string{
	"in_flight": "in flight", "pending": "not yet", "outbox": "not relayed", "quarantined": "refused by the log",
}

// stateName is a state in words.
func stateName(state string) string {
	if name, ok := stateNames[state]; ok {
		return name
	}
	return state
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if cut := []rune(line); len(cut) > 240 {
		return string(cut[:240]) + "…"
	}
	return line
}

// pretty is JSON with a member to a line; what is none stays as it is.
func pretty(data json.RawMessage) string {
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		return string(data)
	}
	return out.String()
}
