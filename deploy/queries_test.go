// Package deploy holds what an installation takes from here: dashboards, alert rules and Prometheus' configuration. It is a module of its own
// for its test's sake, which reads their queries as Prometheus does.
package deploy

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// parse requires a query to be one. What Grafana fills in is filled in.
func parse(t *testing.T, query string) {
	t.Helper()
	query = strings.NewReplacer("$__rate_interval", "1m", "$job", "j", "$instance", "i", "$consumer", "c").Replace(query)
	_, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	require.NoError(t, err, query)
}

// Each alert says what is wrong, what that means, and what to run to see more.
func TestAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	data, err := os.ReadFile("prometheus/alerts.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(data, &file))
	require.Len(t, file.Groups, 1)
	require.NotEmpty(t, file.Groups[0].Rules)
	seen := map[string]bool{}
	for _, r := range file.Groups[0].Rules {
		require.NotEmpty(t, r.Alert)
		require.False(t, seen[r.Alert], r.Alert)
		seen[r.Alert] = true
		parse(t, r.Expr)
		if r.For != "" {
			_, err := time.ParseDuration(r.For)
			require.NoError(t, err, r.Alert)
		}
		require.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"], r.Alert)
		for _, name := range []string{"summary", "description", "command"} {
			require.NotEmpty(t, r.Annotations[name], "%s: %s", r.Alert, name)
		}
	}
}

func TestPrometheusFindsTheAlerts(t *testing.T) {
	var file struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
		} `yaml:"scrape_configs"`
	}
	data, err := os.ReadFile("prometheus/prometheus.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(data, &file))
	require.Equal(t, "pgoutbox", file.ScrapeConfigs[0].JobName, "alerts go by it")
	for _, name := range file.RuleFiles {
		_, err := os.Stat("prometheus/" + name)
		require.NoError(t, err)
	}
}

func TestDashboard(t *testing.T) {
	var board struct {
		Templating struct{ List []struct{ Name string } }
		Panels     []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr string }
		}
	}
	data, err := os.ReadFile("grafana/pgoutbox.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &board))
	var variables []string
	for _, v := range board.Templating.List {
		variables = append(variables, v.Name)
	}
	require.Equal(t, []string{"datasource", "job", "instance", "consumer"}, variables)
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range board.Panels {
		require.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		require.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
		for _, q := range p.Targets {
			parse(t, q.Expr)
		}
	}
}
