package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/mailsink"
)

func mail(t *testing.T) *mailsink.Sink {
	t.Helper()
	sink, err := mailsink.Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sink.Close(context.Background())) })
	return sink
}

// The whole service works through a pooler that gives its two processes a few connections in turn, a transaction at a time. Of the
// pooler's configuration nothing is special, and of the URL nothing either.
func TestServiceBehindPooler(t *testing.T) {
	t.Parallel()
	const customers = 8
	dir, sink := folder(t), mail(t)
	s := startServer(t, filepath.Join(dir, "pg"), nil)
	url := s.URL("outbox")
	outbox(t, []string{"DATABASE_URL=" + url}, "migrate", "up")
	p := startPooler(t, filepath.Join(dir, "pooler"), url, map[string]string{"default_pool_size": "8"})
	env := []string{"DATABASE_URL=" + p.URL("outbox"), "OUTBOX_POLL_ONLY=true", "SMTP_URL=" + sink.URL(), "OUTBOX_RETRY_BASE=100ms"}
	processes := []*service{startService(t, env...), startService(t, env...)}
	// An event that nobody can work with goes all the way to the dead letters while the others pass.
	do(t, url, `SELECT outbox_append('order.paid', 'nobody', '{"order_id":"not-a-uuid"}')`)

	t.Run("customers", func(t *testing.T) {
		for n := range customers {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				require.Equal(t, "paid", processes[n%2].as(t).buy(fmt.Sprintf("customer%d@example.com", n)))
			})
		}
	})
	for what, query := range map[string]string{
		"the sales are booked":        `SELECT stock + reserved + 8 - 100000 FROM products WHERE sku = 'espresso-beans'`,
		"the carts' history is whole": `SELECT count(*) - 24 FROM cart_history`,
		"the mails are noted":         `SELECT count(*) - 16 FROM emails`,
		"the trials began":            `SELECT count(*) - 8 FROM subscriptions`,
		"the rest is held once":       `SELECT count(*) - 2 FROM holds`, // inventory's and receipt-email's
		"and is tried again":          `SELECT (count(*) = 0)::int FROM delivery_log WHERE attempt > 2`,
	} {
		eventually(t, what, func() bool { return number(t, url, query) == 0 })
	}
	require.Len(t, sink.Messages(), 2*customers)
	outbox(t, env, "check")
	outbox(t, env, "consumers", "ls")
	for _, process := range processes {
		require.NotContains(t, process.said(), "SQLSTATE 42P05") // what was prepared on a connection that is another's now
		require.NotContains(t, process.said(), "SQLSTATE 26000")
	}
}
