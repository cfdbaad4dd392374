package main_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// spanCollector receives spans by OTLP over HTTP, and keeps them.
type spanCollector struct {
	url string

	mu    sync.Mutex
	spans []*otlp.Span
	raw   []byte // all that came
}

func newSpanCollector(t *testing.T) *spanCollector {
	t.Helper()
	c := &spanCollector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in collector.ExportTraceServiceRequest
		if err == nil && r.URL.Path == "/v1/traces" {
			err = proto.Unmarshal(body, &in)
		}
		if err != nil {
			return // a process was killed while it sent
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw = append(c.raw, body...)
		for _, of := range in.ResourceSpans {
			for _, by := range of.ScopeSpans {
				c.spans = append(c.spans, by.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// of are the spans of a trace, and those among them that have one of the names, where names are given.
func (c *spanCollector) of(trace string, names ...string) (found []*otlp.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) == trace && (len(names) == 0 || slices.Contains(names, s.Name)) {
			found = append(found, s)
		}
	}
	return found
}

// torn is the id of a span that has not come, of which one with these names is a part; nil: there is none.
func (c *spanCollector) torn(trace string, names ...string) []byte {
	for _, s := range c.of(trace, names...) {
		if !slices.ContainsFunc(c.of(trace), func(p *otlp.Span) bool { return bytes.Equal(p.SpanId, s.ParentSpanId) }) {
			return s.ParentSpanId
		}
	}
	return nil
}

func (c *spanCollector) contains(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.raw, []byte(text))
}

// tree requires all spans of the trace to hang together below the caller's span, and each to carry the correlation id. It returns the names
// of the spans, each with its parent's.
func (c *spanCollector) tree(t *testing.T, trace, root, correlation string) map[string]int {
	t.Helper()
	names := map[string]string{root: "caller"}
	for _, s := range c.of(trace) {
		names[hex.EncodeToString(s.SpanId)] = s.Name
	}
	edges := map[string]int{}
	for _, s := range c.of(trace) {
		parent := names[hex.EncodeToString(s.ParentSpanId)]
		require.NotEmpty(t, parent, "%s lacks its parent", s.Name)
		require.Equal(t, correlation, spanAttribute(s, "correlation_id"), s.Name)
		edges[s.Name+" < "+parent]++
	}
	return edges
}

func spanAttribute(s *otlp.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}
