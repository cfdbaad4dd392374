package payments_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pgoutbox/pgoutbox/internal/payments"
)

// answering is a provider that gives one answer.
type answering struct {
	intent payments.Intent
	err    error
}

func (a answering) Create(context.Context, payments.CreateParams) (payments.Intent, error) {
	return a.intent, a.err
}

func (a answering) Find(context.Context, string) (payments.Intent, error) { return a.intent, a.err }

func (a answering) Get(context.Context, string) (payments.Intent, error) { return a.intent, a.err }

func (a answering) Confirm(context.Context, string) (payments.Intent, error) { return a.intent, a.err }

func TestCallsAreSpans(t *testing.T) {
	t.Parallel()
	for want, a := range map[string]answering{
		"":                {intent: payments.Intent{ID: "pi_canary", Status: payments.StatusSucceeded}},
		"outcome_unknown": {err: &payments.UnknownError{Op: "confirm", Err: errors.New("canary")}},
		"unavailable":     {err: &payments.UnavailableError{Op: "confirm", Err: errors.New("canary")}},
		"not_found":       {err: payments.ErrNotFound},
		"key_reused":      {err: fmt.Errorf("canary: %w", payments.ErrKeyReused)},
	} {
		kept := tracetest.NewInMemoryExporter()
		ctx, around := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept)).Tracer("test").Start(t.Context(), "deliver")
		traced := payments.Traced(a)
		for name, call := range map[string]func() (payments.Intent, error){
			"payment create": func() (payments.Intent, error) {
				return traced.Create(ctx, payments.CreateParams{IdempotencyKey: "canary", Method: "canary"})
			},
			"payment find":    func() (payments.Intent, error) { return traced.Find(ctx, "canary") },
			"payment get":     func() (payments.Intent, error) { return traced.Get(ctx, "canary") },
			"payment confirm": func() (payments.Intent, error) { return traced.Confirm(ctx, "canary") },
		} {
			kept.Reset()
			intent, err := call()
			require.Equal(t, a, answering{intent, err})
			spans := kept.GetSpans()
			require.Len(t, spans, 1)
			require.Equal(t, name, spans[0].Name)
			require.Equal(t, around.SpanContext().SpanID(), spans[0].Parent.SpanID())
			said := fmt.Sprintf("%+v", spans)
			require.NotContains(t, said, "canary")
			failed := a.err != nil && (want != "not_found" || name != "payment find")
			require.Equal(t, failed, spans[0].Status.Code == codes.Error, name)
			if failed {
				require.Contains(t, said, want)
			}
		}
	}
	// Outside of a trace it only passes on.
	_, err := payments.Traced(answering{err: payments.ErrNotFound}).Get(t.Context(), "x")
	require.ErrorIs(t, err, payments.ErrNotFound)
}
