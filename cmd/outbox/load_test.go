package main_test

import (
	"encoding/json"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// A load buys something and waits for it; what it tells is what the service has seen. It stops by itself.
func TestLoad(t *testing.T) {
	t.Parallel()
	p := startDev(t, dataDir(t))
	out, err := outboxCommand(t, nil, "load", p.api, "--clients=2", "--for=8s", "--json")
	require.NoError(t, err, out)
	type figures struct {
		Count     int
		PerSecond float64 `json:"per_second"`
		P50       float64 `json:"p50_ms"`
		P99       float64 `json:"p99_ms"`
	}
	var told struct {
		Clients int
		Seconds float64
		Writes  figures
		ToTrial figures `json:"to_trial"`
		ToPaid  figures `json:"to_paid"`
		Failed  []any
	}
	require.NoError(t, json.Unmarshal([]byte(out), &told), out)
	require.Equal(t, 2, told.Clients)
	require.GreaterOrEqual(t, told.Seconds, 8.0)
	require.Empty(t, told.Failed)
	require.Positive(t, told.ToTrial.Count)
	require.Positive(t, told.ToPaid.Count)
	require.Greater(t, told.Writes.Count, 3*told.ToPaid.Count, "a cart, an item and a checkout for each order, and two signups")
	require.GreaterOrEqual(t, told.ToPaid.P99, told.ToPaid.P50)
	require.Positive(t, told.Writes.P50)
	var users, paid int
	require.NoError(t, p.pool().QueryRow(t.Context(), `select (select count(*) from users), (select count(*) from orders where status = 'paid')`).Scan(&users, &paid))
	require.Equal(t, 2, users)
	require.LessOrEqual(t, told.ToTrial.Count, users)
	require.GreaterOrEqual(t, paid, told.ToPaid.Count, "an order may be paid when nobody waits for it any more")

	out, err = outboxCommand(t, nil, "load", p.admin, "--for=1s")
	require.Error(t, err, "that is not the API")
	require.Contains(t, out, "is not outbox dev")
	for _, wrong := range []string{"--clients=0", "--for=2h"} {
		out, err = outboxCommand(t, nil, "load", p.api, wrong)
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 2, exit.ExitCode(), out)
	}
}
