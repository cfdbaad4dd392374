package telemetry

import (
	"context"
	"math/rand/v2"

	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// IDs draws ids at random, as the SDK does by itself, but for spans whose id is known beforehand: those of attempts at a delivery, which
// another process may have to export in place of one that died.
type IDs struct{}

// NewIDs draws the ids of a new trace and its first span.
func (IDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	var t trace.TraceID
	for !t.IsValid() {
		fill(t[:])
	}
	return t, IDs{}.NewSpanID(ctx, t)
}

// NewSpanID draws the id of a span, or takes the one that ctx asks for.
func (IDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	s, _ := outbox.SpanIDFromContext(ctx)
	for !s.IsValid() {
		fill(s[:])
	}
	return s
}

// fill takes random numbers. Somebody may guess them: they are no secret.
func fill(b []byte) {
	for ; len(b) > 0; b = b[8:] {
		n := rand.Uint64()
		for i := range 8 {
			b[i] = byte(n >> (8 * i))
		}
	}
}
