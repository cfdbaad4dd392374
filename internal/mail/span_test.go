package mail_test

import (
	"fmt"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// A mail is a span that tells of a refusal the codes, and never to whom it went or what it said.
func TestMailsAreSpans(t *testing.T) {
	t.Parallel()
	sink, _ := startSink(t)
	sender := newSender(t, sink.URL())
	kept := tracetest.NewInMemoryExporter()
	ctx, around := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept)).Tracer("test").Start(t.Context(), "deliver")
	if err := sender.Send(ctx, message(sender)); err != nil {
		t.Fatal(err)
	}
	if err := sink.SetMode(550); err != nil {
		t.Fatal(err)
	}
	if err := sender.Send(ctx, message(sender)); err == nil {
		t.Fatal("it was not refused")
	}
	spans := kept.GetSpans()
	if len(spans) != 2 || spans[0].Parent.SpanID() != around.SpanContext().SpanID() {
		t.Fatalf("spans: %+v", spans)
	}
	if spans[0].Status.Code != codes.Unset || spans[1].Status.Code != codes.Error {
		t.Errorf("status: %v, %v", spans[0].Status, spans[1].Status)
	}
	said := fmt.Sprintf("%+v", spans)
	if !strings.Contains(said, "550") || !strings.Contains(said, "127.0.0.1") {
		t.Errorf("codes or server are missing: %s", said)
	}
	for _, secret := range []string{"ada", "Ada", "Grüße", "Hello"} {
		if strings.Contains(said, secret) {
			t.Errorf("it tells %s", secret)
		}
	}
}
