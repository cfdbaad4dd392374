package outbox

import (
	"context"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// relaySpans is how many events of one batch of the relay get a span: their exporters have queues, and what they show of a backlog, one
// shows as well as the other.
const relaySpans = 500

// moved is a batch that the relay has moved, and not told of yet.
type moved struct {
	above, head  int64
	lanes        []int16
	began, ended time.Time
}

// toTell notes what was moved to the log, from above on.
func (r *relay) toTell(above int64, rows []outboxdb.RelayMoveRow, began time.Time) {
	if r.tracer == nil {
		return
	}
	r.untold = &moved{above: above, head: r.head, began: began, ended: r.beatAt}
	for _, row := range rows {
		if !slices.Contains(r.untold.lanes, row.Lane) {
			r.untold.lanes = append(r.untold.lanes, row.Lane)
		}
	}
}

// tellMoved makes the spans of what was moved last: of each sampled event one, from when it happened until it was in the log, and of the
// batch one, which they are linked to. The events are read once more, when they are committed and their lanes are woken, and only where
// something is traced at all: neither does their way wait for it, nor can it be what a batch fails with.
func (r *relay) tellMoved(ctx context.Context) {
	m := r.untold
	r.untold = nil
	if m == nil {
		return
	}
	rows, err := r.q.EventsTraced(ctx, r.db(r.pool), outboxdb.EventsTracedParams{Lanes: m.lanes, Above: m.above, Head: m.head, Most: relaySpans})
	if err != nil {
		r.log.Debug("relay: read what is traced", "error", err)
		return
	}
	var traces []*eventTrace
	var events []*stored
	var links []trace.Link
	for _, row := range rows {
		ev := &stored{ID: row.ID, Type: row.Type, CorrelationID: row.CorrelationID, TraceParent: &row.Traceparent, OccurredAt: row.OccurredAt}
		if t := traceOf(ev); t.sampled() {
			traces, events = append(traces, t), append(events, ev)
			if len(links) < maxLinks {
				links = append(links, trace.Link{SpanContext: t.parent})
			}
		}
	}
	if len(traces) == 0 {
		return
	}
	_, batch := r.tracer.Start(ctx, "relay", trace.WithNewRoot(), trace.WithTimestamp(m.began), trace.WithLinks(links...),
		trace.WithAttributes(system, attrOperation.String("relay"), attrCount.Int64(m.head-m.above)))
	for i, t := range traces {
		began := events[i].OccurredAt
		if began.After(m.ended) { // by another clock
			began = m.ended
		}
		_, span := r.tracer.Start(t.in(WithCorrelationID(ctx, events[i].CorrelationID)), "relay "+events[i].Type, trace.WithTimestamp(began),
			trace.WithLinks(trace.Link{SpanContext: batch.SpanContext()}), trace.WithAttributes(eventAttributes(events[i])...),
			trace.WithAttributes(attrOperation.String("relay")))
		span.End(trace.WithTimestamp(m.ended))
	}
	batch.End(trace.WithTimestamp(m.ended))
}
