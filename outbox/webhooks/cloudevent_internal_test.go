package webhooks

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

func TestCloudEvent(t *testing.T) {
	t.Parallel()
	id, cause := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	e := outbox.Received[json.RawMessage]{
		ID: id, Type: "cart.checked_out", Key: "cart-7", Data: json.RawMessage(`{"html": "<b>&</b>", "n": 12345678901234567890.50}`), CorrelationID: "request-1",
		CausationID: cause, TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", SchemaVersion: 3, Position: 42,
		OccurredAt: time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.FixedZone("", 3600)),
	}
	body, err := encode(e, "https://shop.example/events")
	require.NoError(t, err)
	require.Equal(t, `{"specversion":"1.0","id":"`+id.String()+`","source":"https://shop.example/events","type":"cart.checked_out","subject":"cart-7",`+
		`"time":"2026-01-02T02:04:05.6789Z","datacontenttype":"application/json","data":{"html":"<b>&</b>","n":12345678901234567890.50},"partitionkey":"cart-7",`+
		`"sequence":"00000000000000000042","correlationid":"request-1","causationid":"`+cause.String()+`",`+
		`"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","schemaversion":3}`, string(body))

	// Whatever is not there is left out: CloudEvents know no empty attributes. A trace that is none is none.
	body, err = encode(outbox.Received[json.RawMessage]{ID: id, Type: "a", Key: "k", Data: json.RawMessage(`null`), TraceParent: "what I like", SchemaVersion: 1}, DefaultSource)
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(body, &got))
	for _, missing := range []string{"causationid", "traceparent", "sequence"} {
		require.NotContains(t, got, missing)
	}
	legal := regexp.MustCompile(`^[a-z0-9]{1,20}$`)
	for name := range got {
		require.Regexp(t, legal, name)
	}
	require.Contains(t, got, "data")
}
