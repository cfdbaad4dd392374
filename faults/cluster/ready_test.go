package cluster

import (
	"context"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// The service says so when a failover can lose what it acknowledged, also as a role that may look at nothing.
func TestReadySaysThatTheStandbyIsAsynchronous(t *testing.T) {
	t.Parallel()
	p := startPair(t, true)
	ctx, admin := bounded(t), p.URL("outbox")
	do(t, admin, `CREATE ROLE shop LOGIN PASSWORD 'shop'`, `CREATE DATABASE shop OWNER shop`)
	shop, err := url.Parse(p.URL("shop"))
	require.NoError(t, err)
	shop.User = url.UserPassword("shop", "shop")
	env := []string{"DATABASE_URL=" + shop.String(), "SMTP_URL=" + mail(t).URL()}
	outbox(t, env, "migrate", "up")
	service := startService(t, env...)
	// On a busy machine an answer may be that the database took too long, and be right the next time.
	var said []any
	warns := func(times int) {
		t.Helper()
		eventually(t, "it is ready, and warns or does not", func() bool {
			status, answer := service.call("GET", "/readyz", "", nil)
			said, _ = answer["warnings"].([]any)
			return status == 200 && answer["status"] == "ready" && len(said) == times
		})
	}
	warns(0)

	require.NoError(t, alter(ctx, p.Primary(), ""))
	warns(1)
	require.Contains(t, said[0], "standby is asynchronous")
	do(t, admin, `GRANT pg_monitor TO shop`)
	warns(1) // one that may look sees the same
	do(t, admin, `REVOKE pg_monitor FROM shop`)
	require.NoError(t, alter(ctx, p.Primary(), "*"))
	warns(0)

	// Where commits do not wait, names are of no use.
	leave := `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'`
	do(t, admin, `ALTER ROLE shop SET synchronous_commit = 'local'`, leave)
	warns(1)
	do(t, admin, `ALTER ROLE shop RESET synchronous_commit`, leave)
	warns(0)

	// Without a standby there is nothing to fail over to, and a backup is none.
	require.NoError(t, alter(ctx, p.Primary(), ""))
	warns(1)
	require.NoError(t, p.Standby().Kill())
	warns(0)
	backup := replicate(t, p.Primary(), "pg_basebackup")
	warns(0)
	other := replicate(t, p.Primary(), "other")
	warns(1)
	require.NoError(t, other.Close(ctx))
	warns(0)
	require.NoError(t, backup.Close(ctx))
}

// replicate is a connection of the kind that a standby has.
func replicate(t *testing.T, s *Server, name string) *pgconn.PgConn {
	t.Helper()
	config, err := pgconn.ParseConfig(s.URL("postgres") + "&replication=true&application_name=" + name)
	require.NoError(t, err)
	conn, err := pgconn.ConnectConfig(bounded(t), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}
