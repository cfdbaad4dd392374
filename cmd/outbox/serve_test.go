package main_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/mailsink"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// outboxCommand runs a command of the binary to its end.
func outboxCommand(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	return runCommand(t, path, env, args...)
}

// runCommand is outboxCommand of another binary.
func runCommand(t *testing.T, path string, env []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestServeRefusesToSellForNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"no database": {[]string{"DATABASE_URL=", "SMTP_URL=smtp://127.0.0.1:1", "OUTBOX_PAYMENTS=sandbox"}, "DATABASE_URL is required"},
		"no mail":     {[]string{"DATABASE_URL=postgres://127.0.0.1:1/x", "SMTP_URL=", "OUTBOX_PAYMENTS=sandbox"}, "SMTP_URL is required"},
		"no payments": {[]string{"DATABASE_URL=postgres://127.0.0.1:1/x", "SMTP_URL=smtp://127.0.0.1:1", "OUTBOX_PAYMENTS="}, "OUTBOX_PAYMENTS is required"},
		"no stripe":   {[]string{"DATABASE_URL=postgres://127.0.0.1:1/x", "SMTP_URL=smtp://127.0.0.1:1", "OUTBOX_PAYMENTS=stripe", "STRIPE_SECRET_KEY="}, "STRIPE_SECRET_KEY is required"},
		"attempts":    {[]string{"OUTBOX_MAX_ATTEMPTS=0"}, "OUTBOX_MAX_ATTEMPTS must be"},
		"no duration": {[]string{"OUTBOX_RETRY_BASE=soon"}, "RetryBase"},
		"tracing":     {[]string{"OTEL_TRACES_EXPORTER=smoke"}, "OTEL_TRACES_EXPORTER must be otlp, console or none"},
		"limits":      {[]string{"OUTBOX_RATE_LIMITS=login:pair=5/1h,signup:account=5/1h"}, `OUTBOX_RATE_LIMITS: "signup:account=5/1h" names no limit`},
		"proxies":     {[]string{"OUTBOX_TRUSTED_PROXIES=10.0.0.0/8,proxy"}, `OUTBOX_TRUSTED_PROXIES: "proxy" must be`},
		"networks":    {[]string{"OUTBOX_WEBHOOK_NETWORKS=10.0.0.0/8,home"}, `OUTBOX_WEBHOOK_NETWORKS: "home" must be a network or an address`},
		"host bits":   {[]string{"OUTBOX_WEBHOOK_NETWORKS=10.1.2.3/8"}, `OUTBOX_WEBHOOK_NETWORKS: "10.1.2.3/8" has more bits`},
		"disabling":   {[]string{"OUTBOX_WEBHOOK_DISABLE_AFTER=0"}, "OUTBOX_WEBHOOK_DISABLE_AFTER must be"},
		"source":      {[]string{"OUTBOX_WEBHOOK_SOURCE=a b"}, "OUTBOX_WEBHOOK_SOURCE must be a URI"},
		"tokens":      {[]string{"OUTBOX_ADMIN_TOKENS=justatoken"}, "OUTBOX_ADMIN_TOKENS must be name:token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := outboxCommand(t, c.env, "serve")
			require.Error(t, err)
			require.Contains(t, out, c.want)
		})
	}
}

func TestServeWantsTheSchema(t *testing.T) {
	t.Parallel()
	env := []string{"DATABASE_URL=" + testdb.Empty(t), "SMTP_URL=smtp://127.0.0.1:1", "OUTBOX_PAYMENTS=sandbox"}
	out, err := outboxCommand(t, env, "serve")
	require.Error(t, err)
	require.Contains(t, out, "outbox migrate up")

	out, err = outboxCommand(t, env, "migrate", "up")
	require.NoError(t, err, out)
	require.NotRegexp(t, `(?m)  pending$`, out)
	out, err = outboxCommand(t, env, "migrate", "down")
	require.NoError(t, err, out)
	require.Regexp(t, `(?m)  pending$`, out)
	out, err = outboxCommand(t, env, "migrate", "up")
	require.NoError(t, err, out)
	out, err = outboxCommand(t, env, "check")
	require.NoError(t, err, out)
}

// A transaction pooler loses the lock that keeps two migrations from running at once.
func TestMigrationsWantASession(t *testing.T) {
	t.Parallel()
	env := []string{"DATABASE_URL=" + testdb.Empty(t), "OUTBOX_POLL_ONLY=true"}
	for _, args := range [][]string{{"migrate", "up"}, {"migrate", "down"}, {"dev", "--data", t.TempDir()}} {
		out, err := outboxCommand(t, env, args...)
		require.Error(t, err)
		require.Contains(t, out, "OUTBOX_POLL_ONLY")
	}
}

// An API and two workers are three processes on one database; the workers come and go.
func TestServeRolesOnOneDatabase(t *testing.T) {
	t.Parallel()
	sink, err := mailsink.Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sink.Close(context.Background())) })
	env := []string{"DATABASE_URL=" + testdb.New(t), "SMTP_URL=" + sink.URL(), "OUTBOX_PAYMENTS=sandbox", "OUTBOX_ADMIN_TOKENS="}
	api := startServe(t, "api", env)
	first := startServe(t, "worker", env)
	second := startServe(t, "worker", env)

	require.Equal(t, 404, api.get(api.admin+"/admin/dlq"), "without tokens there are no admin routes")
	require.Equal(t, 404, api.get(api.api+"/dev/mail"), "the switches of dev are dev's")
	require.Equal(t, 200, api.get(api.api+"/readyz"))
	require.Equal(t, 200, first.get(first.admin+"/readyz"))

	newCustomer(t, api.process, "alan@example.com")
	first.kill() // perhaps it is the one that leads
	newCustomer(t, api.process, "alonzo@example.com")
	third := startServe(t, "worker", env)
	require.NoError(t, second.cmd.Process.Signal(syscall.SIGTERM))
	<-second.ended
	require.NoError(t, second.err, second.tail())
	newCustomer(t, api.process, "kurt@example.com")
	api.until("the mails arrived", func() bool { return len(sink.Messages()) >= 3 })
	require.Equal(t, 200, third.get(third.admin+"/readyz"))
}
