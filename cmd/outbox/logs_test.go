package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// serviceLine is a line of the service's log.
type serviceLine struct {
	Msg, Route, Consumer, Outcome string
	Status, Attempt               int
	EventID                       string `json:"event_id"`
	CorrelationID                 string `json:"correlation_id"`
	TraceID                       string `json:"trace_id"`
}

func (l serviceLine) delivery() string {
	return fmt.Sprint(l.Consumer, " ", l.EventID, " ", l.Attempt, " ", l.Outcome)
}

func (p *process) lines(msg string) (found []serviceLine) {
	p.t.Helper()
	all, err := os.ReadFile(p.log.Name())
	require.NoError(p.t, err)
	for line := range strings.Lines(string(all)) {
		var said serviceLine
		require.NoError(p.t, json.Unmarshal([]byte(line), &said), line)
		if said.Msg == msg {
			found = append(found, said)
		}
	}
	return found
}

// The log of a shop has a line for each request and for each delivery that failed or calls the outside, each with its correlation id and
// its trace, and nothing of a person.
func TestLogsTellOfEachRequestAndDelivery(t *testing.T) {
	t.Parallel()
	const (
		address, password, name = "canary@example.com", "canary correct horse battery", "Canary Person"
		reason                  = "canary's mail is mended"
	)
	spans := newSpanCollector(t)
	p := startDev(t, dataDir(t), "OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT="+spans.url,
		"OUTBOX_LOG_DELIVERIES=failures", "OUTBOX_MAX_ATTEMPTS=2", "OUTBOX_RETRY_BASE=20ms")
	asked := map[string]int{} // how often, by correlation id
	call := func(status int, method, path string, body any, header ...string) answer {
		t.Helper()
		a := p.call(method, path, body, header...)
		require.Equal(t, status, a.status, a.raw)
		asked[a.header.Get("X-Correlation-ID")]++
		return a
	}

	call(201, "POST", "/v1/signup", map[string]any{"email": address, "password": password, "name": name})
	call(409, "POST", "/v1/signup", map[string]any{"email": address, "password": password, "name": name})
	call(401, "POST", "/v1/sessions", map[string]any{"email": address, "password": password + "!"})
	call(422, "POST", "/v1/signup", map[string]any{"email": address, "password": password, "name": name, "canary": address})
	call(404, "GET", "/v1/"+address, nil)
	token := call(201, "POST", "/v1/sessions", map[string]any{"email": address, "password": password}).text("token")
	bearer := "Bearer " + token
	call(200, "GET", "/v1/account", nil, "Authorization", bearer, "Prefer", "wait=30")
	p.until("the welcome mail arrived", func() bool { return len(p.mails("welcome")) == 1 })
	call(200, "PUT", "/dev/mail/mode", map[string]any{"smtp_code": 451})
	cart := call(201, "POST", "/v1/carts", nil, "Authorization", bearer).text("cart_id")
	call(200, "POST", "/v1/carts/"+cart+"/items", map[string]any{"sku": "filter-beans", "quantity": 1}, "Authorization", bearer)
	order := call(202, "POST", "/v1/carts/"+cart+"/checkout", map[string]any{"payment_method": "pm_card_visa"}, "Authorization", bearer).text("order_id")
	require.Equal(t, "paid", call(200, "GET", "/v1/orders/"+order, nil, "Authorization", bearer, "Prefer", "wait=30").text("status"))
	letter := ""
	p.until("the receipt is a dead letter", func() bool {
		items, _ := call(200, "GET", "/admin/dlq?state=dead", nil).body["items"].([]any)
		if len(items) == 1 {
			letter = fmt.Sprint(items[0].(map[string]any)["id"])
		}
		return len(items) == 1
	})
	call(200, "PUT", "/dev/mail/mode", map[string]any{"smtp_code": 250})
	call(200, "POST", "/admin/search", map[string]any{"query": address})
	call(202, "POST", "/admin/dlq/"+letter+"/replay", map[string]any{"reason": reason})
	p.until("the receipt arrived", func() bool { return len(p.mails("receipt")) == 1 })

	// What has to have a line, the tables tell: every record of an attempt, and the clean first tries that they keep none of.
	var deliveries []string
	pool := p.pool()
	p.until("all is done", func() bool {
		require.NoError(t, pool.QueryRow(t.Context(), `
			select coalesce(array_agg(line), '{}') from (
				select format('%s %s %s %s', consumer, event_id, attempt, outcome) as line
				  from delivery_log where outcome in ('failed', 'applied', 'duplicate', 'rescued', 'suspect')
				union all
				select format('%s %s 1 applied', p.consumer, p.event_id) from processed_events p join consumers c on c.name = p.consumer and c.kind = 'external'
				 where not exists (select from delivery_log l where l.consumer = p.consumer and l.event_id = p.event_id and l.outcome = 'applied')) of`).Scan(&deliveries))
		return len(deliveries) == 5
	})
	pool.Close()
	p.stop()

	got := map[string]int{}
	for _, l := range p.lines("request") {
		require.NotEmpty(t, l.CorrelationID)
		require.NotEmpty(t, l.TraceID, l.Route)
		if asked[l.CorrelationID] > 0 {
			got[l.CorrelationID]++
		}
	}
	require.Equal(t, asked, got)
	var told []string
	for _, l := range p.lines("delivery") {
		require.NotEmpty(t, l.CorrelationID)
		require.NotEmpty(t, l.TraceID)
		told = append(told, l.delivery())
	}
	require.ElementsMatch(t, deliveries, told)
	require.NotEmpty(t, p.lines("drain"), "billing, cart-history and inventory")

	all, err := os.ReadFile(p.log.Name())
	require.NoError(t, err)
	for _, planted := range []string{"canary", "Canary", password, token, p.token, "pm_card_visa"} {
		require.NotContains(t, string(all), planted)
	}
}
