package pages

import (
	"fmt"
	"time"
)

// scale puts moments on a line of 100 %. The marks at its ends need some room. Where something is open, the line goes on to now; if that
// is far from the last thing that happened, it is broken there, so that what happened does not become a dot.
type scale struct {
	from, until, now time.Time
	open, broken     bool
}

const (
	scaleLeft   = 1.0
	scaleRight  = 98.5
	scaleBreak  = 84.0 // where what happened ends, on a broken line
	breakBeyond = 0.25 // of what happened, from there to now
)

func newScale(from, until, now time.Time, open bool) scale {
	if !until.After(from) {
		until = from.Add(time.Millisecond)
	}
	if now.Before(until) {
		now = until
	}
	s := scale{from: from, until: until, now: now, open: open}
	s.broken = open && float64(now.Sub(until)) > breakBeyond*float64(until.Sub(from))
	if open && !s.broken {
		s.until = now
	}
	return s
}

func (s scale) x(t time.Time) float64 {
	right := scaleRight
	if s.broken {
		right = scaleBreak
	}
	switch {
	case t.Before(s.from):
		return scaleLeft
	case !t.After(s.until):
		return scaleLeft + (right-scaleLeft)*float64(t.Sub(s.from))/float64(s.until.Sub(s.from))
	case !s.broken || s.now.Equal(s.until):
		return right
	}
	return right + (scaleRight-right)*min(1, float64(t.Sub(s.until))/float64(s.now.Sub(s.until)))
}

func (s scale) at(t time.Time) string { return percent(s.x(t)) }

func (s scale) bar(from, to time.Time, class, title string) bar {
	a, b := s.x(from), s.x(to)
	return bar{percent(a), percent(max(0.4, b-a)), class, title}
}

// ticks are round distances from the beginning, four or five of them, and now.
func (s scale) ticks() []tick {
	all := []tick{{percent(scaleLeft), "0", "start"}}
	length := s.until.Sub(s.from)
	step := niceStep(length / 4)
	for at := step; at <= length; at += step {
		x := s.x(s.from.Add(at))
		if x > 93 || s.broken && x > 80 {
			break
		}
		all = append(all, tick{percent(x), "+" + round(at), "middle"})
	}
	if s.open {
		all = append(all, tick{percent(scaleRight), "now", "end"})
	}
	return all
}

var steps = []time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}

func niceStep(atLeast time.Duration) time.Duration {
	for _, s := range steps {
		if s >= atLeast {
			return s
		}
	}
	const day = 24 * time.Hour
	return (atLeast/day + 1) * day
}

// round is a tick's distance, which is a whole number of something.
func round(d time.Duration) string {
	if d >= time.Second && d < time.Minute {
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return span(d)
}

func percent(x float64) string { return fmt.Sprintf("%.2f%%", x) }
