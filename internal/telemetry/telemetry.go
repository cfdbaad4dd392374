// Package telemetry sets up tracing by the environment variables of OpenTelemetry. Nothing is traced where they do not ask for it.
package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/internal/quiet"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// serviceName is whose spans they are where OTEL_SERVICE_NAME says nothing.
const serviceName = "pgoutbox"

// stopTime is how long Stop waits for the last spans to be exported.
const stopTime = 5 * time.Second

// Telemetry is the tracing of a process.
type Telemetry struct{ provider *sdktrace.TracerProvider }

// Start sets tracing up as the OTEL_ variables say, and refuses by name what cannot be. What goes wrong in exporting later is logged, once
// in a while, and costs spans and nothing else.
func Start(ctx context.Context, version string, log *slog.Logger) (*Telemetry, error) {
	s, err := loadSettings()
	if err != nil || s.exporter == "" {
		return &Telemetry{}, err
	}
	silence(log)
	exporter, err := newExporter(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER=%s: %w", s.exporter, err)
	}
	described, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", serviceName), attribute.String("service.version", version),
			attribute.String("service.instance.id", uuid.NewString())),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(), // the last word
	)
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	// The sampler, the limits and the batches are set by the SDK from its own variables.
	return &Telemetry{newProvider(described, sdktrace.NewBatchSpanProcessor(exporter))}, nil
}

func newProvider(r *resource.Resource, processor sdktrace.SpanProcessor) *sdktrace.TracerProvider {
	return sdktrace.NewTracerProvider(sdktrace.WithResource(r), sdktrace.WithIDGenerator(IDs{}),
		sdktrace.WithSpanProcessor(correlated{}), sdktrace.WithSpanProcessor(processor))
}

// newExporter makes the exporters that there are. OpenTelemetry's own way to look them up by name, autoexport, brings Prometheus and all that is
// for metrics and logs along.
func newExporter(ctx context.Context, s settings) (sdktrace.SpanExporter, error) {
	switch {
	case s.exporter == "console":
		return stdouttrace.New()
	case s.protocol == "grpc":
		return otlptracegrpc.New(ctx)
	default:
		return otlptracehttp.New(ctx)
	}
}

// TracerProvider makes the spans; nil: there are none.
func (t *Telemetry) TracerProvider() trace.TracerProvider {
	if t.provider == nil {
		return nil
	}
	return t.provider
}

// Stop exports what there is, in five seconds at most, and ends tracing.
func (t *Telemetry) Stop() error {
	if t.provider == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	return t.provider.Shutdown(ctx)
}

// silence sends what the SDK has to say to the log: by default it writes to the standard error as it likes.
func silence(log *slog.Logger) {
	otel.SetLogger(logr.FromSlogHandler(quiet.Warnings(log.Handler())))
	otel.SetErrorHandler(&complaints{log: log})
}

// correlated puts the correlation id on every span, whoever starts it.
type correlated struct{}

func (correlated) OnStart(ctx context.Context, span sdktrace.ReadWriteSpan) {
	if id := outbox.CorrelationID(ctx); id != "" {
		span.SetAttributes(attribute.String("correlation_id", id))
	}
}
func (correlated) OnEnd(sdktrace.ReadOnlySpan)      {}
func (correlated) Shutdown(context.Context) error   { return nil }
func (correlated) ForceFlush(context.Context) error { return nil }
