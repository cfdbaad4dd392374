package pages

import (
	"fmt"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// timelineView is a timeline, drawn over time.
type timelineView struct {
	*outbox.Timeline
	// Open is what has not happened, each with its dead letter where it has one.
	Open  []openItem
	Took  string
	Ticks []tick
	// Broken says that the time since the last thing that happened is drawn shorter than it is, as Since.
	Broken bool
	Since  string
	Rows   []row
}

type openItem struct {
	outbox.OpenDelivery
	LetterID *int64
}

// row is a line of the drawing: the request, an event, or one of its deliveries.
type row struct {
	Kind  string // request, event or delivery
	Depth int    // 0 to maxDepth
	Label string
	Href  string
	State string
	Says  string // what the drawing shows, in words
	Bars  []bar
	Marks []mark
}

type bar struct{ X, Width, Class, Title string }

// mark is something that happened in a moment. Shape is cross (failed), square (given up), triangle (replayed), dash (dismissed), ring
// (suppressed or overtaken) or dot (done).
type mark struct{ X, Shape, Title string }

type tick struct{ X, Label, Anchor string }

const maxDepth = 6

var shapes = map[string]string{
	"failed": "cross", "rescued": "cross", "suspect": "cross", "dead": "square", "replayed": "triangle", "dismissed": "dash",
	"duplicate": "ring", "fenced": "ring",
}

func newTimeline(t *outbox.Timeline) timelineView {
	now := time.Now()
	s := newScale(t.From, t.Until, now, len(t.Open) > 0)
	v := timelineView{
		Timeline: t, Took: span(t.Until.Sub(t.From)), Ticks: s.ticks(), Broken: s.broken, Since: span(now.Sub(t.Until)),
	}
	letters := map[string]*int64{}
	for _, e := range t.Events {
		for _, d := range e.Deliveries {
			letters[d.Consumer+" "+e.ID.String()] = d.LetterID
		}
	}
	for _, o := range t.Open {
		v.Open = append(v.Open, openItem{o, letters[o.Consumer+" "+o.EventID.String()]})
	}
	source := t.Request.Source
	if source == "" {
		source = "producer unknown"
	}
	v.Rows = append(v.Rows, row{
		Kind: "request", Label: source, Says: "the request, at " + clock(t.Request.At),
		Marks: []mark{{s.at(t.Request.At), "dot", "request, " + clock(t.Request.At)}},
	})
	for i := range t.Events {
		e := &t.Events[i]
		v.Rows = append(v.Rows, eventRow(s, e))
		for j := range e.Deliveries {
			v.Rows = append(v.Rows, deliveryRow(s, e, &e.Deliveries[j]))
		}
	}
	return v
}

// eventRow is drawn from when the event was committed until it was in the log.
func eventRow(s scale, e *outbox.EventView) row {
	r := row{Kind: "event", Depth: min(e.Depth, maxDepth), Label: e.Type, Href: Root + "/events/" + e.ID.String(), State: e.State}
	if e.RelayedAt != nil {
		r.Says = fmt.Sprintf("in the log after %s", span(e.RelayedAt.Sub(e.OccurredAt)))
		r.Bars = append(r.Bars, s.bar(e.OccurredAt, *e.RelayedAt, "relay", "on its way into the log: "+span(e.RelayedAt.Sub(e.OccurredAt))))
		r.Marks = append(r.Marks, mark{s.at(e.OccurredAt), "dot", "committed, " + clock(e.OccurredAt)})
		return r
	}
	r.Says = stateName(e.State)
	r.Bars = append(r.Bars, s.bar(e.OccurredAt, s.now, "open", stateName(e.State)+", for "+span(s.now.Sub(e.OccurredAt))))
	return r
}

// deliveryRow is drawn from when the consumer could know of the event. What is solid has happened; what is hatched has not, up to now.
func deliveryRow(s scale, e *outbox.EventView, d *outbox.DeliveryStatus) row {
	r := row{Kind: "delivery", Depth: min(e.Depth, maxDepth), Label: d.Consumer, State: d.State, Says: d.Explanation}
	begin := e.OccurredAt
	if e.RelayedAt != nil {
		begin = *e.RelayedAt
	}
	end := begin
	for _, a := range d.Attempts {
		if a.Outcome == "waited" && a.Since != nil {
			continue
		}
		if a.At.After(end) {
			end = a.At
		}
	}
	if d.ProcessedAt != nil {
		end = *d.ProcessedAt
	}
	if end.After(begin) {
		r.Bars = append(r.Bars, s.bar(begin, end, barClass(d.State), stateName(d.State)+": "+span(end.Sub(begin))+" after the log had it"))
	}
	for _, a := range d.Attempts {
		if a.Outcome == "waited" && a.Since != nil {
			r.Bars = append(r.Bars, s.bar(*a.Since, a.At, "waited", "waited "+span(a.At.Sub(*a.Since))+" behind another event of its key"))
			continue
		}
		if shape, ok := shapes[a.Outcome]; ok {
			r.Marks = append(r.Marks, mark{s.at(a.At), shape, attemptTitle(a)})
		}
	}
	switch d.State {
	case "processed":
		if d.ProcessedAt != nil {
			r.Marks = append(r.Marks, mark{s.at(*d.ProcessedAt), "dot", "done, " + clock(*d.ProcessedAt)})
		}
	case "dismissed", "skipped":
	default:
		r.Bars = append(r.Bars, s.bar(end, s.now, "open", stateName(d.State)+", since "+span(s.now.Sub(end))))
	}
	return r
}

func barClass(state string) string {
	switch state {
	case "processed":
		return "done"
	case "dead", "skipped", "dismissed":
		return "failed"
	}
	return "tried"
}

func attemptTitle(a outbox.AttemptRecord) string {
	said := a.Outcome + ", " + clock(a.At)
	if a.Attempt > 0 {
		said = fmt.Sprintf("attempt %d: %s", a.Attempt, said)
	}
	if a.Error != "" {
		said += ": " + firstLine(a.Error)
	}
	return said
}
