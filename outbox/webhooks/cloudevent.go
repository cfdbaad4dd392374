package webhooks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// cloudEvent is an event as CloudEvents 1.0 has it in its JSON format. What comes after data is extensions.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              uuid.UUID       `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`
	// PartitionKey is the key, again: whoever puts events into a stream that has such looks for it here (Partitioning extension).
	PartitionKey string `json:"partitionkey"`
	// Sequence is the position in the log, as text that sorts as positions do (Sequence extension).
	Sequence      string     `json:"sequence,omitempty"`
	CorrelationID string     `json:"correlationid"`
	CausationID   *uuid.UUID `json:"causationid,omitempty"`
	// TraceParent is the producer's (Distributed Tracing extension); that of this delivery is in the header.
	TraceParent   string `json:"traceparent,omitempty"`
	SchemaVersion int    `json:"schemaversion"`
}

// encode makes a CloudEvent of an event, whose data stays as it is stored.
func encode(e outbox.Received[json.RawMessage], source string) ([]byte, error) {
	c := cloudEvent{
		SpecVersion: "1.0", ID: e.ID, Source: source, Type: e.Type, Subject: e.Key, Time: e.OccurredAt.UTC(), DataContentType: "application/json",
		Data: e.Data, PartitionKey: e.Key, CorrelationID: e.CorrelationID, SchemaVersion: e.SchemaVersion,
	}
	if e.Position > 0 {
		c.Sequence = fmt.Sprintf("%020d", e.Position)
	}
	if e.CausationID != uuid.Nil {
		c.CausationID = &e.CausationID
	}
	if traceable(e.TraceParent) { // a producer in SQL writes what it likes
		c.TraceParent = e.TraceParent
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false) // it is none, and a receiver that logs it reads what was written
	if err := encoder.Encode(c); err != nil {
		return nil, fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	return bytes.TrimSuffix(body.Bytes(), []byte("\n")), nil
}

func traceable(traceParent string) bool {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": traceParent})
	return trace.SpanContextFromContext(ctx).IsValid()
}
