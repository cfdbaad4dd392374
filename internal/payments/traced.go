package payments

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Traced returns a provider whose calls are spans, of the trace that the caller's context is a part of, if any. They say what was asked, how
// the intent stands, and of an error only its kind; nothing of who pays.
func Traced(p Provider) Provider { return traced{p} }

type traced struct{ provider Provider }

func (t traced) Create(ctx context.Context, p CreateParams) (Intent, error) {
	return call(ctx, "create", func(ctx context.Context) (Intent, error) { return t.provider.Create(ctx, p) })
}

func (t traced) Find(ctx context.Context, idempotencyKey string) (Intent, error) {
	return call(ctx, "find", func(ctx context.Context) (Intent, error) { return t.provider.Find(ctx, idempotencyKey) })
}

func (t traced) Get(ctx context.Context, intentID string) (Intent, error) {
	return call(ctx, "get", func(ctx context.Context) (Intent, error) { return t.provider.Get(ctx, intentID) })
}

func (t traced) Confirm(ctx context.Context, intentID string) (Intent, error) {
	return call(ctx, "confirm", func(ctx context.Context) (Intent, error) { return t.provider.Confirm(ctx, intentID) })
}

func call(ctx context.Context, op string, do func(context.Context) (Intent, error)) (intent Intent, err error) {
	ctx, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("github.com/pgoutbox/pgoutbox/internal/payments").
		Start(ctx, "payment "+op, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("payment.operation", op)))
	defer span.End() // also where the provider panics
	intent, err = do(ctx)
	switch {
	case err == nil:
		span.SetAttributes(attribute.String("payment.status", string(intent.Status)))
	case errors.Is(err, ErrNotFound) && op == "find":
		span.SetAttributes(attribute.String("payment.status", "none")) // an answer, and often the one that is hoped for
	default:
		span.SetAttributes(attribute.String("error.type", errorType(err)))
		span.SetStatus(codes.Error, "")
	}
	return intent, err
}

func errorType(err error) string {
	var unknown *UnknownError
	var unavailable *UnavailableError
	switch {
	case errors.As(err, &unknown):
		return "outcome_unknown"
	case errors.As(err, &unavailable):
		return "unavailable"
	case errors.Is(err, ErrNotFound):
		return "not_found"
	case errors.Is(err, ErrKeyReused):
		return "key_reused"
	}
	return fmt.Sprintf("%T", err)
}
