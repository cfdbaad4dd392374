package handlers_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/handlers"
)

// A request is a span of its caller's trace, by its route and nothing else of it; its events belong to that trace. Probes are none.
func TestRequestsAreSpans(t *testing.T) {
	t.Parallel()
	kept := tracetest.NewInMemoryExporter()
	s := newShop(t, func(cfg *handlers.Config) { cfg.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept)) })
	c := s.customer()
	named := func(name string) tracetest.SpanStub {
		t.Helper()
		var found tracetest.SpanStub
		require.Eventually(t, func() bool { // it ends after the answer was sent
			for _, span := range kept.GetSpans() {
				if span.Name == name {
					found = span
					return true
				}
			}
			return false
		}, 10*time.Second, 5*time.Millisecond, name)
		return found
	}
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	require.Equal(t, 201, c.call("POST", "/v1/carts?canary=1", nil, "traceparent", parent, "tracestate", "a=canary").status)
	span := named("POST /v1/carts")
	require.Equal(t, trace.SpanKindServer, span.SpanKind)
	require.Equal(t, "b7ad6b7169203331", span.Parent.SpanID().String())
	require.Equal(t, span.SpanContext.SpanID(), named("append cart.created").Parent.SpanID())
	var stored string
	require.NoError(t, s.pool.QueryRow(t.Context(), `select traceparent from outbox`).Scan(&stored))
	require.Equal(t, "00-0af7651916cd43dd8448eb211c80319c-"+named("append cart.created").SpanContext.SpanID().String()+"-01", stored)

	id := uuid.NewString()
	require.Equal(t, 404, c.call("GET", "/v1/orders/"+id, nil).status)
	require.Equal(t, codes.Unset, named("GET /v1/orders/:order_id").Status.Code, "it is no fault of ours")
	s.call("BREW", "/nowhere/canary", nil)
	named("other unmatched")
	s.call("GET", "/healthz", nil)
	s.exec(`alter table orders rename to gone`)
	require.Equal(t, 500, c.call("GET", "/v1/orders", nil).status)
	require.Equal(t, codes.Error, named("GET /v1/orders").Status.Code)
	all := fmt.Sprintf("%+v", kept.GetSpans())
	for _, secret := range []string{"canary", id, c.token, c.email, c.id.String(), "healthz"} {
		require.NotContains(t, all, secret)
	}
}

// Without a TracerProvider a caller's trace is not taken up: nobody would know of the spans between.
func TestUntracedRequests(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	require.Equal(t, 201, c.call("POST", "/v1/carts", nil, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").status)
	var none bool
	require.NoError(t, s.pool.QueryRow(t.Context(), `select traceparent is null from outbox`).Scan(&none))
	require.True(t, none)
}
