package outbox

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// scope names the library to whoever reads its spans.
const scope = "github.com/pgoutbox/pgoutbox/outbox"

// maxLinks is how many links a span gets: OpenTelemetry's SDK keeps as many where nothing else is said.
const maxLinks = 128

// What spans say, by the names of OpenTelemetry's conventions for messaging where those have one. Never among it are an event's key, which
// may be a person's, its data, and the words of errors, which may be made of both.
const (
	attrSystem       = attribute.Key("messaging.system")
	attrOperation    = attribute.Key("messaging.operation.name")
	attrKind         = attribute.Key("messaging.operation.type")
	attrEventID      = attribute.Key("messaging.message.id")
	attrType         = attribute.Key("messaging.destination.name")
	attrConsumer     = attribute.Key("messaging.consumer.group.name")
	attrCorrelation  = attribute.Key("messaging.message.conversation_id")
	attrCount        = attribute.Key("messaging.batch.message_count")
	attrErrorType    = attribute.Key("error.type")
	attrAttempt      = attribute.Key("outbox.attempt")
	attrOutcome      = attribute.Key("outbox.outcome")
	attrLane         = attribute.Key("outbox.lane")
	attrDeadLetterID = attribute.Key("outbox.dead_letter.id")
)

// outcomeRolledBack is the outcome of a handler's run that has left nothing, because its transaction or savepoint was rolled back.
const outcomeRolledBack = "rolled_back"

var system = attrSystem.String("outbox")

// eventAttributes say which event it is.
func eventAttributes(e *stored) []attribute.KeyValue {
	return []attribute.KeyValue{system, attrEventID.String(e.ID.String()), attrType.String(e.Type), attrCorrelation.String(e.CorrelationID)}
}

// traceContext reads what the row of an event carries. It is not valid where that is nothing, or nothing that can be read: a producer in
// SQL writes what it likes.
func traceContext(traceParent string) trace.SpanContext {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": traceParent})
	return trace.SpanContextFromContext(ctx)
}

// traceParent is what the row of an event carries of a span.
func traceParent(sc trace.SpanContext) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), carrier)
	return carrier["traceparent"]
}

// tracerOf is the library's tracer of the tracing that ctx's span belongs to, for what has no Config: it makes no spans where there is none.
func tracerOf(ctx context.Context) trace.Tracer {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer(scope)
}

// eventTrace is the trace of an event in hand: what its row carries and, while it is worked on, the span of that. It is nil where the
// engine makes no spans, or the row carries nothing.
type eventTrace struct {
	parent trace.SpanContext
	span   trace.Span
}

func traceOf(e *stored) *eventTrace {
	if e.TraceParent == nil {
		return nil
	}
	if sc := traceContext(*e.TraceParent); sc.IsValid() {
		return &eventTrace{parent: sc}
	}
	return nil
}

// sampled reports whether spans are wanted: who began the trace decided that for all of it.
func (t *eventTrace) sampled() bool { return t != nil && t.parent.IsSampled() }

// in returns ctx within the event's trace, for log lines and for what the event causes.
func (t *eventTrace) in(ctx context.Context) context.Context {
	switch {
	case t == nil || !t.parent.IsValid():
		return ctx
	case t.span != nil && t.span.SpanContext().TraceID() == t.parent.TraceID():
		return trace.ContextWithSpan(ctx, t.span)
	default: // not sampled, or worked on in a set, whose span is of no event's trace
		return trace.ContextWithRemoteSpanContext(ctx, t.parent)
	}
}

// inTrace returns ctx within the trace that an event carries, where there are spans at all: for log lines about an event that is not in hand.
func (e *Engine) inTrace(ctx context.Context, traceParent string) context.Context {
	if e.tracer == nil {
		return ctx
	}
	return traceOf(&stored{TraceParent: &traceParent}).in(ctx)
}

// inSpan returns ctx within a span, if there is one.
func inSpan(ctx context.Context, span trace.Span) context.Context {
	if span == nil {
		return ctx
	}
	return trace.ContextWithSpan(ctx, span)
}

// end ends the span, if there is one, with what became of the event.
func (t *eventTrace) end(outcome string, err error) {
	if t == nil || t.span == nil {
		return
	}
	t.span.SetAttributes(attrOutcome.String(outcome))
	endSpan(t.span, err)
	t.span = nil
}

// endSpan ends a span, and marks it as failed where there is an error.
func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetAttributes(attrErrorType.String(errorType(err)))
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// errorType says of which kind an error is, in none of its words. Those are in the log line that has the trace's id.
func errorType(err error) string {
	if state := sqlState(err); state != "" {
		return state
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return fmt.Sprintf("%T", err)
}

// appendSpan is the span of an append. Where its context has no span it is empty, and does nothing.
type appendSpan struct {
	span        trace.Span // nil where none is recorded
	traceParent string     // of the rows
}

// startAppend begins the span of an append, of one event or many. An append has no engine whose tracer it could use: it is a part of
// whatever its context is a part of.
func startAppend(ctx context.Context, events []Event) appendSpan {
	around := trace.SpanFromContext(ctx)
	if !around.SpanContext().IsValid() {
		return appendSpan{}
	}
	if !around.IsRecording() {
		return appendSpan{traceParent: traceParent(around.SpanContext())}
	}
	name := "append " + events[0].Type
	for _, e := range events[1:] {
		if e.Type != events[0].Type {
			name = "append"
		}
	}
	if !typeForm.MatchString(events[0].Type) || len(events[0].Type) > MaxTypeBytes {
		name = "append" // it is about to be refused
	}
	_, span := tracerOf(ctx).Start(ctx, name, trace.WithSpanKind(trace.SpanKindProducer))
	return appendSpan{span: span, traceParent: traceParent(span.SpanContext())}
}

// end ends the span with what was, or would have been, appended.
func (s appendSpan) end(rows []stored, err error) {
	if s.span == nil {
		return
	}
	attrs := []attribute.KeyValue{system, attrOperation.String("append"), attrKind.String("send")}
	switch {
	case err != nil:
	case len(rows) == 1:
		attrs = append(attrs, eventAttributes(&rows[0])...)
	default:
		attrs = append(attrs, attrCount.Int(len(rows)))
	}
	s.span.SetAttributes(attrs...)
	endSpan(s.span, err)
}

// withTrace returns ctx within the trace of an event, unless it is already, or nothing is traced.
func withTrace(ctx context.Context, parent string) context.Context {
	now := trace.SpanContextFromContext(ctx)
	if !now.IsValid() || parent == "" {
		return ctx
	}
	sc := traceContext(parent)
	if !sc.IsValid() || sc.TraceID() == now.TraceID() {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, sc)
}
