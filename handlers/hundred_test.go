package handlers_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// atTwo is the shop at two processes on one database, in turn.
func atTwo(s *shop) func(i int) *shop {
	s.t.Helper()
	other, _ := bounded(&shop{t: s.t, pool: testdb.SmallPool(s.t, s.pool, 16)}, 1000)
	there := *s
	there.url = "http://" + other
	return func(i int) *shop { return []*shop{s, &there}[i%2] }
}

// A hundred requests with one key, at two processes at the same time, are one: each gets the one answer, some of them after they were told that
// the first is under way, and the state, the event and the kept answer are there once.
func TestIdempotencyOfAHundredAtTwoProcesses(t *testing.T) {
	t.Parallel()
	const requests = 100
	for name, c := range map[string]struct {
		// ask makes the body and names the path of a request, of which there are many.
		ask      func(c *customer) (path string, body any)
		requests int
		status   int
		// effects are what there is one more of.
		effects string
	}{
		"a cart": {
			func(*customer) (string, any) { return "/v1/carts", nil },
			requests, 201, `select count(*) from carts where version = 1`,
		},
		"a line of a cart": {
			func(c *customer) (string, any) {
				return "/v1/carts/" + c.cart() + "/items", map[string]any{"sku": "filter-beans", "quantity": 2}
			},
			requests, 200, `select coalesce(sum(quantity), 0) / 2 from cart_items`,
		},
		"a checkout": {
			func(c *customer) (string, any) { return "/v1/carts/" + c.cart("filter-beans", 1) + "/checkout", visa() },
			requests, 202, `select count(*) from orders where user_id = (select user_id from orders limit 1)`,
		},
		// Of each, a password is hashed, and some are told that too many are.
		"a signup": {
			func(*customer) (string, any) { return "/v1/signup", credentials("ada@example.com") },
			requests / 4, 201, `select count(*) from users where email = 'ada@example.com'`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			at := atTwo(s)
			who := s.customer()
			path, body := c.ask(who)
			effects, events := value[int](s, c.effects), s.events()
			inFlight := make(chan answer, 100*requests)
			answers := together(t, c.requests, func(i int) (answer, error) {
				for {
					a, err := at(i).try(t.Context(), "POST", path, body, "Authorization", "Bearer "+who.token, key, `"one"`)
					switch {
					case err != nil:
						return a, err
					case a.status == 409:
						inFlight <- a
					case a.status != 503:
						return a, nil
					}
					select {
					case <-t.Context().Done():
						return a, t.Context().Err()
					case <-time.After(20 * time.Millisecond): // Retry-After says a second, for clients that have it
					}
				}
			})
			close(inFlight)
			for a := range inFlight {
				s.problem(a, 409, "idempotency-in-flight")
				require.Equal(t, "1", a.header.Get("Retry-After"))
			}
			first := 0
			for _, a := range answers {
				require.Equal(t, c.status, a.status, a.raw)
				require.Equal(t, answers[0].raw, a.raw)
				if a.header.Get("Idempotent-Replayed") == "" {
					first++
				}
			}
			require.Equal(t, 1, first, "all others are told that it is the answer of another")
			require.Equal(t, effects+1, value[int](s, c.effects))
			require.Equal(t, events+1, s.events())
			require.Equal(t, c.requests-1, value[int](s, `select replays from idempotency_keys`), "each of them has written, and committed")
		})
	}
}
