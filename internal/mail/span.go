package mail

import (
	"context"
	"errors"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// startSpan begins the span of a mail, of the trace that the context is a part of, if any. It says which server, and of a refusal its codes:
// no address and no subject.
func (s *Sender) startSpan(ctx context.Context) (context.Context, trace.Span) {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer("github.com/pgoutbox/pgoutbox/internal/mail").
		Start(ctx, "send mail", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("network.protocol.name", "smtp"), attribute.String("server.address", s.config.host), attribute.Int("server.port", s.config.port)))
}

func endSpan(span trace.Span, err error) {
	defer span.End()
	if err == nil {
		return
	}
	kind := "invalid_message"
	var refused *RefusedError
	if errors.As(err, &refused) {
		kind = "unanswered"
		if refused.Code != 0 {
			kind = strconv.Itoa(refused.Code)
			span.SetAttributes(attribute.Int("smtp.code", refused.Code), attribute.String("smtp.enhanced_code", refused.Enhanced))
		}
		span.SetAttributes(attribute.String("smtp.stage", refused.Stage), attribute.Bool("smtp.temporary", refused.Temporary))
	}
	span.SetAttributes(attribute.String("error.type", kind))
	span.SetStatus(codes.Error, "")
}
