package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// TestCheckSaysItsExitCode: 0 where all is in order, 1 where it is not, 2 where nobody knows.
func TestCheckSaysItsExitCode(t *testing.T) {
	t.Parallel()
	path, err := binary()
	require.NoError(t, err)
	check := func(url string, args ...string) (code int, stdout string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), path, append([]string{"check"}, args...)...)
		cmd.Env = append(os.Environ(), "DATABASE_URL="+url)
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		var exit *exec.ExitError
		if err := cmd.Run(); errors.As(err, &exit) {
			require.NotEmpty(t, said.String())
		} else {
			require.NoError(t, err)
		}
		return cmd.ProcessState.ExitCode(), out.String()
	}
	report := func(out string) (r outbox.CheckReport) {
		t.Helper()
		require.NoError(t, json.Unmarshal([]byte(out), &r), out)
		return r
	}
	pool := testdb.Pool(t)
	url := pool.Config().ConnString()

	code, out := check(url)
	require.Equal(t, 0, code)
	require.Contains(t, out, "0 events in the log")
	code, out = check(url, "--json", "--incremental")
	require.Equal(t, 0, code)
	require.Contains(t, out, `"problems":[]`)
	require.Equal(t, outbox.CheckReport{Problems: []outbox.CheckProblem{}}, report(out))

	_, err = pool.Exec(t.Context(), `update relay_state set head = 7`)
	require.NoError(t, err)
	code, out = check(url, "--json")
	require.Equal(t, 1, code)
	require.Equal(t, "gap", report(out).Problems[0].Kind)
	code, out = check(url)
	require.Equal(t, 1, code)
	require.Contains(t, out, "gap")

	code, out = check("postgres://nobody@127.0.0.1:1/nothing")
	require.Equal(t, 2, code)
	require.Empty(t, out)
}
