package main_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
)

// A checkout whose process is killed while it is charged, and whose receipt is refused for good and then replayed, is one trace from the
// caller's span on. Nobody's name is in it.
func TestCheckoutIsOneTrace(t *testing.T) {
	t.Parallel()
	const (
		trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
		request       = "POST /v1/carts/:cart_id/checkout"
	)
	spans := newSpanCollector(t)
	env := []string{
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT=" + spans.url, "OTEL_BSP_SCHEDULE_DELAY=20", "OUTBOX_RETRY_BASE=100ms",
	}
	dir := dataDir(t)
	p := startDev(t, dir, env...)
	c := newCustomer(t, p, "canary@example.com")
	p.until("the welcome mail arrived", func() bool { return len(p.mails("welcome")) == 1 })
	require.Equal(t, 200, p.call("PUT", "/dev/mail/mode", map[string]any{"smtp_code": 550}).status)

	// The charge waits in the sandbox, and there its process is killed: what it called before has been exported, and it has not.
	pool, err := pgxpool.New(t.Context(), p.database)
	require.NoError(t, err)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `lock table sandbox.charges in exclusive mode`)
	require.NoError(t, err)
	order := c.checkout("pm_card_visa", "filter-beans", "traceparent", fmt.Sprintf("00-%s-%s-01", trace, caller), "X-Correlation-ID", "one-trace")
	var attempt []byte // that has no span yet, but what it called
	p.until("an attempt waits in the middle, and its beginnings are exported", func() bool {
		var waits bool
		require.NoError(t, tx.QueryRow(t.Context(), `select exists (select from pg_locks where relation = 'sandbox.charges'::regclass and not granted)`).Scan(&waits))
		attempt = spans.torn(trace, "payment create", "payment get")
		return waits && attempt != nil && len(spans.of(trace, "append cart.checked_out", request)) == 2
	})
	p.kill()
	_ = tx.Rollback(t.Context()) // its server is gone
	pool.Close()

	p = startDev(t, dir, env...)
	c.p = p
	p.until("the order is paid", func() bool { return c.order(order) == "paid" })
	var letter string
	p.until("the receipt is a dead letter", func() bool {
		items, _ := p.call("GET", "/admin/dlq?consumer=receipt-email&state=dead", nil).body["items"].([]any)
		if len(items) == 1 {
			letter = fmt.Sprint(items[0].(map[string]any)["id"])
		}
		return len(items) == 1
	})
	require.Equal(t, 200, p.call("PUT", "/dev/mail/mode", map[string]any{"smtp_code": 250}).status)
	require.Equal(t, 202, p.call("POST", "/admin/dlq/"+letter+"/replay", map[string]any{"reason": "canary reason"}).status)
	p.until("the receipt arrived", func() bool { return len(p.mails("receipt")) == 1 })
	p.stop() // with the last spans

	edges := spans.tree(t, trace, caller, "one-trace")
	require.Equal(t, 1, edges[request+" < caller"])
	for _, want := range []string{
		"append cart.checked_out < " + request,
		"process cart.checked_out < append cart.checked_out",
		"deliver cart.checked_out < append cart.checked_out",
		"payment create < deliver cart.checked_out", "payment confirm < deliver cart.checked_out",
		"append order.paid < deliver cart.checked_out",
		"relay order.paid < append order.paid",
		"process order.paid < append order.paid",
		"deliver order.paid < append order.paid",
		"send mail < deliver order.paid",
		"replay order.paid < append order.paid",
	} {
		require.Contains(t, edges, want)
	}
	require.Equal(t, 2, edges["send mail < deliver order.paid"], "refused, and sent")

	rescued := func() (found []*otlp.Span) {
		for _, s := range spans.of(trace, "deliver cart.checked_out") {
			if spanAttribute(s, "outbox.outcome") == "rescued" {
				found = append(found, s)
			}
		}
		return found
	}()
	require.Len(t, rescued, 1)
	require.Equal(t, otlp.Status_STATUS_CODE_ERROR, rescued[0].Status.Code)
	require.Equal(t, attempt, rescued[0].SpanId)
	replay := spans.of(trace, "replay order.paid")[0]
	require.Len(t, replay.Links, 1)
	require.Len(t, spans.of(hex.EncodeToString(replay.Links[0].TraceId), "POST /admin/dlq/:id/replay"), 1)

	for _, secret := range []string{"canary", "correct horse", "A customer", strings.TrimPrefix(c.bearer, "Bearer "), p.token, order, "pm_card_visa"} {
		require.False(t, spans.contains(secret), secret)
	}
	require.True(t, spans.contains("receipt-email"), "the search finds what is there")
	for _, line := range [][2]string{{"request", request}, {"delivery", "payments"}, {"delivery", "inventory"}, {"delivery", "receipt-email"}} {
		require.True(t, logged(t, p, trace, line[0], line[1]), "a %s line of %s has the trace's id", line[0], line[1])
	}
}

// logged reports whether a line of the log has the trace's id, and is of that kind and about that route or consumer.
func logged(t *testing.T, p *process, trace, msg, about string) bool {
	t.Helper()
	all, err := os.ReadFile(p.log.Name())
	require.NoError(t, err)
	for line := range strings.Lines(string(all)) {
		var said struct {
			Msg, Method, Route, Consumer string
			TraceID                      string `json:"trace_id"`
			SpanID                       string `json:"span_id"`
			CorrelationID                string `json:"correlation_id"`
		}
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == msg && said.TraceID == trace && said.SpanID != "" &&
			said.CorrelationID == "one-trace" && (said.Consumer == about || said.Method+" "+said.Route == about) {
			return true
		}
	}
	return false
}
