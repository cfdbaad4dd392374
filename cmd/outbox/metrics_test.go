package main_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/mailsink"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// scrape is what /metrics answers.
func (p *process) scrape() string {
	p.t.Helper()
	a, err := call(p.t.Context(), "GET", p.admin+"/metrics", nil)
	require.NoError(p.t, err)
	require.Equal(p.t, 200, a.status, a.raw)
	return a.raw
}

// sample waits for a line of a scrape.
func (p *process) sample(line string) {
	p.t.Helper()
	line = regexp.QuoteMeta(line)
	p.until(line, func() bool { return regexp.MustCompile(`(?m)^` + line + `$`).MatchString(p.scrape()) })
}

// What happens moves the numbers; a scrape has all that is documented, and nothing else; dashboard and alerts ask for nothing that is not
// there; and nobody's datum is in it.
func TestMetrics(t *testing.T) {
	t.Parallel()
	p := startDev(t, dataDir(t), "OUTBOX_MAX_ATTEMPTS=2", "OUTBOX_RETRY_BASE=50ms", "OUTBOX_ADMISSION_MAX_AGE=1h")
	a, err := call(t.Context(), "POST", p.admin+"/admin/webhooks", map[string]any{
		"name": "crm", "url": "http://127.0.0.1:1/grace?token=not-a-uuid", "types": []string{"user.*"},
	}, "Authorization", "Bearer "+p.token)
	require.NoError(t, err)
	require.Equal(t, 201, a.status, a.raw)
	newCustomer(t, p, "grace@example.com")
	for _, line := range []string{
		`outbox_deliveries_total{consumer="billing",outcome="applied"} 1`,
		`outbox_deliveries_total{consumer="welcome-email",outcome="applied"} 1`,
		`outbox_set_aside_total{consumer="welcome-email",reason="external"} 1`,
		`outbox_relayed_events_total 1`,
		`outbox_relay_leads 1`,
		`outbox_relay_alive 1`,
		`outbox_scrape_success 1`,
		`outbox_admission_refusing 0`,
		`outbox_webhook_disabled{consumer="webhook-crm"} 0`,
		`outbox_set_aside_total{consumer="webhook-crm",reason="external"} 1`,
		`outbox_consumer_lag_events{consumer="billing"} 0`,
		`outbox_http_request_duration_seconds_count{listener="api",method="POST",route="/v1/signup",status="2xx"} 1`,
	} {
		p.sample(line)
	}
	pool := p.pool()
	for range 2 {
		_, err := pool.Exec(t.Context(), `select outbox_append('user.signed_up', 'nobody-knows', '{"user_id":"not-a-uuid"}')`)
		require.NoError(t, err)
	}
	for range 3 { // what a client makes up makes no row of its own
		a, err := call(t.Context(), "GET", p.api+"/v1/nothing/"+t.Name(), nil)
		require.NoError(t, err)
		require.Equal(t, 404, a.status)
	}
	for _, line := range []string{
		`outbox_delivery_failures_total{consumer="billing",outcome="failed"} 2`,
		`outbox_consumer_dead_letters{consumer="billing"} 1`,
		`outbox_consumer_dead_holds{consumer="welcome-email"} 1`,
		`outbox_consumer_held_keys{consumer="billing"} 1`,
		`outbox_consumer_waiting_events{consumer="billing"} 1`,
		`outbox_set_aside_total{consumer="billing",reason="waiting"} 1`,
		`outbox_http_request_duration_seconds_count{listener="api",method="GET",route="unmatched",status="4xx"} 3`,
	} {
		p.sample(line)
	}

	scraped := p.scrape()
	problems, err := promlint.New(strings.NewReader(scraped)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	for _, datum := range []string{"grace", "not-a-uuid", "nobody-knows", t.Name(), p.token} {
		require.NotContains(t, scraped, datum)
	}
	families := names(scraped, `(?m)^# TYPE (outbox_\w+) `)
	documented, err := os.ReadFile("../../docs/observability.md")
	require.NoError(t, err)
	require.Equal(t, families, names(string(documented), "(?m)^\\| `(outbox_\\w+)[`{]"))
	for _, file := range []string{"grafana/pgoutbox.json", "prometheus/alerts.yml"} {
		asked, err := os.ReadFile(filepath.Join("..", "..", "deploy", file))
		require.NoError(t, err)
		for _, name := range names(string(asked), `\b(outbox_\w+|process_\w+|go_\w+|up)[\[{) ]`) {
			base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
			require.True(t, name == "up" || strings.Contains(scraped, "# TYPE "+name+" ") || strings.Contains(scraped, "# TYPE "+base+" histogram"), "%s: %s", file, name)
		}
	}
}

// names are what the first group of an expression finds, each once, in order.
func names(text, expression string) []string {
	var found []string
	for _, m := range regexp.MustCompile(expression).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// Each process tells what it did, whatever its role; without its database it tells what it knows, and says so.
func TestMetricsOfRolesWithoutADatabase(t *testing.T) {
	t.Parallel()
	sink, err := mailsink.Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sink.Close(context.Background())) })
	database := testdb.New(t)
	env := []string{"DATABASE_URL=" + database, "SMTP_URL=" + sink.URL(), "OUTBOX_PAYMENTS=sandbox", "OUTBOX_ADMIN_TOKENS="}
	api, worker := startServe(t, "api", env), startServe(t, "worker", env)
	newCustomer(t, api.process, "edsger@example.com")
	worker.sample(`outbox_deliveries_total{consumer="billing",outcome="applied"} 1`)
	api.sample(`outbox_consumer_lag_events{consumer="billing"} 0`)
	api.sample(`outbox_relay_leads 0`)
	require.NotContains(t, api.scrape(), "outbox_deliveries_total")

	cfg, err := pgx.ParseConfig(database)
	require.NoError(t, err)
	name := cfg.Database
	cfg.Database = "postgres"
	server, err := pgx.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close(context.Background())) }()
	allow := func(connections bool) {
		_, err := server.Exec(t.Context(), fmt.Sprintf(`alter database %q allow_connections %v`, name, connections))
		require.NoError(t, err)
	}
	allow(false)
	_, err = server.Exec(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1`, name)
	require.NoError(t, err)
	worker.sample(`outbox_scrape_success 0`)
	require.Contains(t, worker.scrape(), `outbox_deliveries_total{consumer="billing",outcome="applied"} 1`)
	require.NotContains(t, worker.scrape(), "outbox_consumer_lag_events")
	allow(true)
	worker.sample(`outbox_scrape_success 1`)
}
