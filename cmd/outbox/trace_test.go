package main_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// command runs the real binary on a database and returns its exit code and what it printed.
func command(t *testing.T, url string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return commandIn(t, []string{"DATABASE_URL=" + url}, args...)
}

// commandIn is command in an environment.
func commandIn(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(out), string(exit.Stderr)
	}
	require.NoError(t, err)
	return 0, string(out), ""
}

// TestTraceTellsByWhateverIsKnown: the timeline by its correlation id, by the user's address and by a key; nothing found is an error.
func TestTraceTellsByWhateverIsKnown(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	url := pool.Config().ConnString()
	user, event := uuid.New(), uuid.New()
	for _, sql := range []string{
		`insert into consumers (name, kind) values ('billing', 'tx')`,
		`insert into cursors (consumer, lane, pos) select 'billing', n, 0 from generate_series(0, 63) n`,
		`insert into consumer_subscriptions (consumer, pattern) values ('billing', 'user.*')`,
		`insert into users (id, email, name, password_hash, signup_event_id) values ('` + user.String() + `', 'ada@example.com', 'Ada', 'x', '` + event.String() + `')`,
		`insert into outbox (id, type, key, data, correlation_id, source) values ('` + event.String() + `', 'user.signed_up', '` + user.String() + `', '{}', 'corr-1', 'POST /v1/signup')`,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	for _, known := range []string{"corr-1", "Ada@Example.com", user.String(), event.String()} {
		code, out, said := command(t, url, "trace", known)
		require.Equal(t, 0, code, said)
		require.Regexp(t, `^corr-1  began with POST /v1/signup at 20`, out)
		require.Contains(t, out, "user.signed_up  "+event.String())
		require.Contains(t, out, "1 not done:\n  the event of user.signed_up is outbox: is committed, and no relay has moved it into the log yet")

		code, out, said = command(t, url, "trace", "--json", known)
		require.Equal(t, 0, code, said)
		var timeline outbox.Timeline
		require.NoError(t, json.Unmarshal([]byte(out), &timeline))
		require.Equal(t, "corr-1", timeline.CorrelationID)
		require.Len(t, timeline.Open, 1)
	}
	code, out, said := command(t, url, "trace", "nobody@example.com")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Contains(t, said, "nobody@example.com")
}
