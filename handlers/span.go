package handlers

import (
	"strconv"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// tracer makes the requests' spans; nil: none.
func tracer(p trace.TracerProvider) trace.Tracer {
	if p == nil {
		return nil
	}
	return p.Tracer("github.com/pgoutbox/pgoutbox/handlers")
}

// startSpan begins the span of a request, as a part of the caller's trace where its headers name one. It knows the route and neither path
// nor query, which hold ids and whatever else a client puts there. Probes have none: they come all the time, and nothing follows from them.
func startSpan(t trace.Tracer, c echo.Context) trace.Span {
	if t == nil || isProbe(c) {
		return nil
	}
	req := c.Request()
	ctx := propagation.TraceContext{}.Extract(req.Context(), propagation.HeaderCarrier(req.Header))
	if caller := trace.SpanContextFromContext(ctx); caller.TraceState().Len() > 0 {
		ctx = trace.ContextWithRemoteSpanContext(ctx, caller.WithTraceState(trace.TraceState{})) // a client can put anything there
	}
	ctx, span := t.Start(ctx, method(req.Method)+" "+route(c), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", method(req.Method)), attribute.String("http.route", route(c))))
	c.SetRequest(req.WithContext(ctx))
	return span
}

// endSpan says how the request ended. A refusal is no error of ours.
func endSpan(span trace.Span, c echo.Context) {
	if span == nil {
		return
	}
	defer span.End()
	failure, _ := c.Get(failureKey).(*problem)
	if clientGone(c) && !c.Response().Committed {
		span.SetAttributes(attribute.String("error.type", "client_gone"))
		return
	}
	span.SetAttributes(attribute.Int("http.response.status_code", c.Response().Status))
	if failure != nil {
		span.SetAttributes(attribute.String("http.response.problem", failure.slug))
	}
	if c.Response().Status >= 500 || failure != nil && failure.status >= 500 {
		span.SetAttributes(attribute.String("error.type", strconv.Itoa(c.Response().Status)))
		span.SetStatus(codes.Error, "")
	}
}
