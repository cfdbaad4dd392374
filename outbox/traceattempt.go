package outbox

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// The span of an attempt outlives its process: its id is made from the token that the attempt drew, which the database knows. A process
// that is killed in an attempt exports no span of it, but may have exported what it called; so who finds the attempt dead exports the span
// in its place, and the trace stays in one piece.

type spanIDKey struct{}

// SpanIDFromContext returns the id that the span has to have which is about to be started with ctx, if it matters which. OpenTelemetry's
// SDK asks its IDGenerator for ids: one that heeds this keeps traces in one piece across crashes. With any other, what an attempt called
// that was killed lacks its parent.
func SpanIDFromContext(ctx context.Context) (trace.SpanID, bool) {
	id, ok := ctx.Value(spanIDKey{}).(trace.SpanID)
	return id, ok
}

// startAttempt starts the span of the attempt that drew the token. It is the only one to get a context with the wish in it: what is started
// below it has ids of its own.
func (e *Engine) startAttempt(ctx context.Context, c string, ev *stored, token uuid.UUID, n int32, began time.Time) trace.Span {
	id := trace.SpanID(token[:8]) // never zero: the version of the UUID is in it
	_, span := e.tracer.Start(context.WithValue(ctx, spanIDKey{}, id), "deliver "+ev.Type, trace.WithTimestamp(began),
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(eventAttributes(ev)...), trace.WithAttributes(
			attrOperation.String("deliver"), attrKind.String("process"), attrConsumer.String(c), attrAttempt.Int(int(n))))
	return span
}

// startSpan begins the attempt's span, where its event is traced.
func (d *attempt) startSpan(ctx context.Context) context.Context {
	if d.tracer == nil {
		return ctx
	}
	t := traceOf(d.event)
	if t.sampled() {
		t.span = d.startAttempt(t.in(ctx), d.c.Name, d.event, d.token, d.n, d.began)
	}
	d.trace = t
	return t.in(ctx)
}

// endRescued says what became of attempts whose processes died, in their log lines and, where they are traced, in their spans. One that only
// hung, and comes to its end after all, exports its own as well, under the same id.
func (e *Engine) endRescued(all []rescued) {
	for _, a := range all {
		ev := &stored{ID: a.EventID, Type: a.Type, CorrelationID: a.CorrelationID, TraceParent: &a.Traceparent}
		ctx := WithCorrelationID(context.Background(), ev.CorrelationID)
		var t *eventTrace
		if e.tracer != nil {
			t = traceOf(ev)
		}
		if t.sampled() && a.Begun {
			t.span = e.startAttempt(t.in(ctx), a.Consumer, ev, a.Token, a.Attempts, a.Began)
			t.span.SetAttributes(attrOutcome.String("rescued"), attrErrorType.String("process_died"))
			t.span.SetStatus(codes.Error, "its process died, or hung")
			t.span.End()
		}
		e.logDelivery(t.in(ctx), slog.LevelWarn, a.Consumer, ev, a.Attempts, "rescued", "free", a.free, "dead", a.dead, "error", errProcessDied.Error())
	}
}

// startReplay begins the span of a replay, in the trace of the event that is replayed and linked to that of the operator's request. What
// follows is no part of it: the delivery's parent is the event, as ever. Nil, where the request or the event is not traced.
func (o *Operator) startReplay(ctx context.Context, db outboxdb.DBTX, l outboxdb.LetterGetRow, began time.Time) (*eventTrace, error) {
	request := trace.SpanContextFromContext(ctx)
	if !request.IsValid() {
		return nil, nil //nolint:nilnil // a nil trace makes no spans
	}
	parent, err := o.q.EventTraceParent(ctx, db, outboxdb.EventTraceParentParams{Lane: l.Lane, Pos: l.Pos})
	if errors.Is(err, pgx.ErrNoRows) { // it is past retention
		return nil, nil //nolint:nilnil // as above
	} else if err != nil {
		return nil, err
	}
	ev := &stored{ID: l.EventID, Type: l.Type, CorrelationID: l.CorrelationID, TraceParent: &parent}
	t := traceOf(ev)
	if t.sampled() {
		_, t.span = tracerOf(ctx).Start(t.in(WithCorrelationID(ctx, l.CorrelationID)), "replay "+l.Type, trace.WithTimestamp(began),
			trace.WithLinks(trace.Link{SpanContext: request}), trace.WithAttributes(eventAttributes(ev)...),
			trace.WithAttributes(attrOperation.String("replay"), attrConsumer.String(l.Consumer), attrDeadLetterID.Int64(l.ID)))
	}
	return t, nil
}
