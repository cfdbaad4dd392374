package outbox

import (
	"context"

	"go.opentelemetry.io/otel/trace"
)

// A batch serves many traces, and so belongs to none: its span is the root of a trace of its own, linked to what it serves. What it does for
// one event is a span in that event's trace, linked to the batch's. Where no event of a batch is sampled there are no spans.

// startSpans begins the batch's span, and notes which events are traced.
func (b *batch) startSpans(ctx context.Context) {
	if b.tracer == nil {
		return
	}
	var links []trace.Link
	for i := range b.items {
		it := &b.items[i]
		if it.trace = traceOf(it.event); it.trace.sampled() && len(links) < maxLinks {
			links = append(links, trace.Link{SpanContext: it.trace.parent})
		}
	}
	if len(links) == 0 {
		return
	}
	_, b.span = b.tracer.Start(ctx, "drain "+b.c.Name, trace.WithNewRoot(), trace.WithTimestamp(b.deadline.Add(-drainCommit)),
		trace.WithLinks(links...), trace.WithAttributes(system, attrOperation.String("drain"), attrConsumer.String(b.c.Name), attrLane.Int(int(b.lane))))
}

// startEvent begins the span of an event whose handler is about to be called, perhaps not for the first time in this batch.
func (b *batch) startEvent(ctx context.Context, it *item) context.Context {
	it.trace.end(outcomeRolledBack, nil)
	if b.span != nil && it.trace.sampled() {
		_, it.trace.span = b.tracer.Start(it.trace.in(ctx), "process "+it.event.Type, trace.WithSpanKind(trace.SpanKindConsumer),
			trace.WithLinks(trace.Link{SpanContext: b.span.SpanContext()}), trace.WithAttributes(eventAttributes(it.event)...),
			trace.WithAttributes(attrOperation.String("process"), attrKind.String("process"), attrConsumer.String(b.c.Name), attrAttempt.Int(1)))
	}
	return it.trace.in(ctx)
}

// startSet begins the span of events that a set-based handler is about to be called with. It is a part of the batch, with links to those
// of the events that are traced; the first of them keeps it.
func (b *batch) startSet(ctx context.Context, events []*item) context.Context {
	for _, it := range events {
		it.trace.end(outcomeRolledBack, nil)
	}
	if b.span == nil {
		return ctx
	}
	var links []trace.Link
	for _, it := range events {
		if it.trace.sampled() && len(links) < maxLinks {
			links = append(links, trace.Link{SpanContext: it.trace.parent})
		}
	}
	ctx, span := b.tracer.Start(trace.ContextWithSpan(ctx, b.span), "process "+b.c.Name, trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithLinks(links...), trace.WithAttributes(system, attrOperation.String("process"), attrKind.String("process"),
			attrConsumer.String(b.c.Name), attrCount.Int(len(events))))
	first := events[0]
	if first.trace == nil {
		first.trace = &eventTrace{}
	}
	first.trace.span = span
	return ctx
}

// endSpans ends what startSpans and the others have begun: the batch is committed or, with an error, rolled back.
func (b *batch) endSpans(err error) {
	if b.span == nil {
		return
	}
	for i := range b.items {
		it := &b.items[i]
		switch {
		case err == nil && it.outcome == applied:
			it.trace.end("applied", nil)
		case err == nil && it.outcome == failed:
			it.trace.end("failed", it.err)
		default:
			it.trace.end(outcomeRolledBack, err)
		}
	}
	b.span.SetAttributes(attrCount.Int(b.done))
	endSpan(b.span, err)
}
