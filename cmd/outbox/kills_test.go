//go:build !race

// What dies here is another process, of which the race detector sees nothing.

package main_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Clients that never give up, a service that is killed five times, and every acknowledged request with its effects
// exactly once.
func TestDevKilledFiveTimesUnderLoad(t *testing.T) {
	t.Parallel()
	const clients, customers, kills = 16, 300, 5
	dir := dataDir(t)
	env := []string{"OUTBOX_ADDR=" + freeAddr(t), "OUTBOX_ADMIN_ADDR=" + freeAddr(t), "OUTBOX_RETRY_BASE=100ms", "OUTBOX_RETRY_MAX=2s"}
	p := startDev(t, dir, env...)
	api := p.api // the same after each restart

	var checkedOut atomic.Int64
	orders := make([]string, customers)
	var work sync.WaitGroup
	for client := range clients {
		work.Go(func() {
			for n := client; n < customers; n += clients {
				order, err := buy(t.Context(), api, n)
				if err != nil {
					t.Errorf("customer %d: %v", n, err)
					return
				}
				orders[n] = order
				checkedOut.Add(1)
			}
		})
	}
	for kill := range kills {
		threshold := int64((kill + 1) * customers / (kills + 1))
		p.until("the load goes on", func() bool { return t.Failed() || checkedOut.Load() >= threshold })
		p.kill()
		p = startDev(t, dir, env...)
	}
	work.Wait()
	require.False(t, t.Failed())

	pool := p.pool()
	holds := func(query string) func() bool {
		return func() bool {
			var ok bool
			require.NoError(t, pool.QueryRow(t.Context(), query).Scan(&ok), query)
			return ok
		}
	}
	p.until("every order is paid", holds(`select count(*) = 300 and bool_and(status = 'paid') from orders`))
	p.until("every trial began", holds(`select count(*) = 300 from subscriptions`))
	p.until("the stock is taken", holds(`select stock = 100000 - 300 and reserved = 0 from products where sku = 'espresso-beans'`))
	p.until("the mails are out", holds(`select count(*) = 600 from emails`))
	p.until("nothing is held", holds(`select not exists (select from holds) and not exists (select from waiting)`))
	require.True(t, holds(`select count(*) = 300 and count(distinct intent_id) = 300 from sandbox.charges`)(), "one charge an order")
	require.True(t, holds(`select not exists (select from discarded_jobs)`)(), "nothing is dead")
	require.True(t, holds(`select count(*) = 300 from users`)())
	require.True(t, holds(`select count(*) = 300 and bool_and(versions = '{1,2,3}')
		from (select array_agg(version order by version) as versions from cart_history group by cart_id) h`)(), "each cart's history is whole")
	require.Len(t, p.mails("welcome"), customers)
	require.Len(t, p.mails("receipt"), customers)
	for n, order := range orders {
		require.NotEmpty(t, order, "customer %d", n)
	}
	p.check()
}
