package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// environment sets these variables and no other OTEL_ ones.
func environment(t *testing.T, set map[string]string) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
	for name, value := range set {
		t.Setenv(name, value)
	}
}

func TestNothingIsTracedUnasked(t *testing.T) {
	for name, set := range map[string]map[string]string{
		"unset":    {},
		"none":     {"OTEL_TRACES_EXPORTER": "none"},
		"endpoint": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
		"disabled": {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, set)
			tracing, err := Start(t.Context(), "v1", slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			require.Nil(t, tracing.TracerProvider())
			require.NoError(t, tracing.Stop())
		})
	}
}

func TestWhatCannotBeIsRefusedByName(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER":               "zipkin",
		"OTEL_SDK_DISABLED":                  "yes",
		"OTEL_EXPORTER_OTLP_PROTOCOL":        "http/json",
		"OTEL_EXPORTER_OTLP_ENDPOINT":        "collector:4318",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://",
		"OTEL_EXPORTER_OTLP_HEADERS":         "hush-a-secret",
		"OTEL_EXPORTER_OTLP_TIMEOUT":         "10s",
		"OTEL_BSP_SCHEDULE_DELAY":            "0",
		"OTEL_TRACES_SAMPLER":                "some",
		"OTEL_RESOURCE_ATTRIBUTES":           "=x",
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, map[string]string{"OTEL_TRACES_EXPORTER": "otlp"})
			require.NoError(t, Check())
			t.Setenv(name, value)
			require.ErrorContains(t, Check(), name)
			require.NotContains(t, Check().Error(), "hush")
			_, err := Start(t.Context(), "v1", slog.New(slog.DiscardHandler))
			require.ErrorContains(t, err, name)
		})
	}
	environment(t, map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "NaN"})
	require.ErrorContains(t, Check(), "OTEL_TRACES_SAMPLER_ARG")
}

// With both protocols a collector that is away costs spans, and a line in the log, and no more.
func TestACollectorThatIsAway(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			environment(t, map[string]string{
				"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
				"OTEL_EXPORTER_OTLP_TIMEOUT": "200",
			})
			tracing, err := Start(t.Context(), "v1", slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			_, span := tracing.TracerProvider().Tracer("test").Start(t.Context(), "lost")
			require.True(t, span.IsRecording())
			span.End()
			_ = tracing.Stop() // what it says of the last batch is not the point
		})
	}
	var log bytes.Buffer
	c := &complaints{log: slog.New(slog.NewJSONHandler(&log, nil))}
	c.Handle(errors.New("away"))
	c.Handle(errors.New("still away"))
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
}

func TestSpansCarryWhatIsKnown(t *testing.T) {
	environment(t, map[string]string{"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": ""})
	tracing, err := Start(t.Context(), "v1.2.3", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	kept := tracetest.NewInMemoryExporter()
	tracing.provider.RegisterSpanProcessor(sdktrace.NewSimpleSpanProcessor(kept))
	ctx, span := tracing.TracerProvider().Tracer("test").Start(outbox.WithCorrelationID(t.Context(), "walk-1"), "one")

	var log bytes.Buffer
	slog.New(Logs(slog.NewJSONHandler(&log, nil))).With("a", 1).InfoContext(ctx, "said")
	slog.New(Logs(slog.NewJSONHandler(&log, nil))).InfoContext(t.Context(), "outside")
	span.End()

	ended := kept.GetSpans()[0]
	require.Contains(t, ended.Resource.String(), "service.name=pgoutbox")
	require.Contains(t, ended.Resource.String(), "service.version=v1.2.3")
	require.Equal(t, "walk-1", ended.Attributes[0].Value.AsString())
	lines := strings.SplitN(log.String(), "\n", 2)
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &line))
	require.Equal(t, span.SpanContext().TraceID().String(), line["trace_id"])
	require.Equal(t, span.SpanContext().SpanID().String(), line["span_id"])
	require.NotContains(t, lines[1], "trace_id")
	kept.Reset()
	require.NoError(t, tracing.provider.ForceFlush(context.Background()))
}

func TestIDs(t *testing.T) {
	t.Parallel()
	seen := map[trace.SpanID]bool{}
	for range 1000 {
		id, span := IDs{}.NewIDs(t.Context())
		require.True(t, id.IsValid() && span.IsValid() && !seen[span])
		seen[span] = true
	}
}
