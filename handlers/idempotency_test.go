package handlers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
)

const key = "Idempotency-Key"

func TestIdempotencyGivesTheFirstAnswerAgain(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	first := s.call("POST", "/v1/signup", credentials("ada@example.com"), key, "one", "X-Correlation-ID", "first")
	require.Equal(t, 201, first.status, first.raw)
	require.Empty(t, first.header.Get("Idempotent-Replayed"))
	for _, spelling := range []string{"one", `"one"`} {
		again := s.call("POST", "/v1/signup", credentials("ada@example.com"), key, spelling, "X-Correlation-ID", "again")
		require.Equal(t, 201, again.status, again.raw)
		require.Equal(t, first.raw, again.raw)
		require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
		require.Equal(t, "again", again.header.Get("X-Correlation-ID"))
	}
	require.Equal(t, 2, value[int](s, `select replays from idempotency_keys`)) // each of them wrote
	other := credentials("ada@example.com")
	other["name"] = "Eve"
	s.problem(s.call("POST", "/v1/signup", other, key, "one"), 422, "idempotency-key-reused")
	require.Equal(t, 2, value[int](s, `select replays from idempotency_keys`))
	require.Equal(t, 1, s.events())
	require.Zero(t, value[int](s, `select count(*) from idempotency_keys where body::text ~ 'ada@|horse'`))
}

func TestIdempotencyIsPerCallerRouteAndCart(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	a, b := s.customer(), s.customer()
	for range 2 {
		for _, c := range []*customer{a, b} {
			require.Equal(t, 201, c.call("POST", "/v1/carts", nil, key, "k").status)
		}
	}
	require.Equal(t, 2, value[int](s, `select count(*) from carts`))
	one, two := a.cart(), a.cart()
	item := map[string]any{"sku": "moka-pot", "quantity": 1}
	for range 2 {
		for _, cart := range []string{one, two} {
			added := a.call("POST", "/v1/carts/"+cart+"/items", item, key, "k")
			require.Equal(t, 200, added.status, added.raw)
			require.Equal(t, cart, added.text("cart_id"))
		}
	}
	require.Equal(t, []int32{1, 1}, value[[]int32](s, `select array_agg(quantity) from cart_items`))

	first := a.call("POST", "/v1/carts/"+one+"/checkout", visa(), key, "k")
	require.Equal(t, 202, first.status, first.raw)
	again := a.call("POST", "/v1/carts/"+one+"/checkout", visa(), key, "k")
	require.Equal(t, first.raw, again.raw)
	s.problem(a.call("POST", "/v1/carts/"+one+"/checkout", visa(), key, "another"), 409, "cart-checked-out")
	s.problem(b.call("POST", "/v1/carts/"+one+"/checkout", visa(), key, "k"), 404, "not-found")
	require.Equal(t, 1, value[int](s, `select count(*) from orders`))
}

func TestIdempotencyInFlight(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	cart := c.cart("filter-beans", 1)
	// Somebody else holds the cart, so that the first request stands still in its transaction.
	tx, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select from carts for update`)
	require.NoError(t, err)
	first := make(chan answer, 1)
	go func() {
		a, _ := s.try(t.Context(), "POST", "/v1/carts/"+cart+"/checkout", visa(), "Authorization", "Bearer "+c.token, key, "k")
		first <- a
	}()
	s.somebodyIsLockedOut()
	s.problem(c.call("POST", "/v1/carts/"+cart+"/checkout", visa(), key, "k"), 409, "idempotency-in-flight")
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, 202, (<-first).status)
}

func TestIdempotencyKeepsNoRefusals(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	cart := c.cart("moka-pot", 4)
	path := "/v1/carts/" + cart + "/checkout"
	s.problem(c.call("POST", path, map[string]any{"payment_method": "?"}, key, "k"), 422, "validation")
	s.problem(c.call("POST", path, visa(), key, "k"), 409, "out-of-stock")
	require.Zero(t, value[int](s, `select count(*) from idempotency_keys`))
	s.exec(`update products set stock = 10 where sku = 'moka-pot'`)
	require.Equal(t, 202, c.call("POST", path, visa(), key, "k").status)
	require.Equal(t, 1, value[int](s, `select count(*) from idempotency_keys`))
}

func TestIdempotencyKeysExpire(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	first := c.call("POST", "/v1/carts", nil, key, "k")
	require.Equal(t, 201, first.status, first.raw)
	s.exec(`update idempotency_keys set created_at = now() - interval '23 hours 59 minutes'`)
	require.Equal(t, first.raw, c.call("POST", "/v1/carts", nil, key, "k").raw)
	n, err := handlers.PurgeIdempotencyKeys(t.Context(), s.pool)
	require.NoError(t, err)
	require.Zero(t, n)

	s.exec(`update idempotency_keys set created_at = now() - interval '24 hours 1 minute'`)
	second := c.call("POST", "/v1/carts", `{}`, key, "k") // another body, and another day
	require.Equal(t, 201, second.status, second.raw)
	require.NotEqual(t, first.text("cart_id"), second.text("cart_id"))
	require.Equal(t, second.raw, c.call("POST", "/v1/carts", `{}`, key, "k").raw)
	require.Equal(t, 1, value[int](s, `select count(*) from idempotency_keys`))

	s.exec(`update idempotency_keys set created_at = now() - interval '24 hours 1 minute'`)
	s.exec(`insert into idempotency_keys (id, body_mac, status, body, created_at)
		select sha256(i::text::bytea), sha256(''), 201, '{}', now() - interval '2 days' from generate_series(1, 2500) i`)
	s.exec(`insert into sessions (token_hash, user_id, expires_at) values (sha256('old'), $1, now() - interval '1 second')`, c.id)
	n, err = handlers.Purge(t.Context(), s.pool)
	require.NoError(t, err)
	require.EqualValues(t, 2502, n)
	require.Equal(t, 1, value[int](s, `select count(*) from sessions`))
}

func TestIdempotencyKeyForms(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	for _, good := range []string{"x", strings.Repeat("x", 255), `"` + strings.Repeat("x", 255) + `"`, `a b,c;d="e"`, `"with \" and \\"`} {
		a := c.call("POST", "/v1/carts", nil, key, good)
		require.Equal(t, 201, a.status, a.raw)
	}
	before := s.events()
	for _, bad := range [][]string{
		{key, ""},
		{key, `""`},
		{key, strings.Repeat("x", 256)},
		{key, `"open`},
		{key, `"escaped \n"`},
		{key, `"a"b"`},
		{key, "ä"},
		{key, "a\tb"},
		{key, "a", key, "b"},
	} {
		s.problem(c.call("POST", "/v1/carts", nil, bad...), 400, "malformed", key)
	}
	require.Equal(t, before, s.events())
	// Where there are no keys, there are no bad ones.
	require.Equal(t, 401, s.call("POST", "/v1/sessions", map[string]any{"email": "a", "password": "b"}, key, "").status)
}

// A commit that is not confirmed may have happened. The client is told so, and its repeat finds the truth.
func TestIdempotencyAfterALostCommit(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	// A deferred trigger runs in the commit, and ends the connection there.
	s.exec(`create function hang_up() returns trigger language plpgsql as
		$$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$`)
	s.exec(`create constraint trigger hang_up after insert on carts deferrable initially deferred for each row execute function hang_up()`)
	a := c.call("POST", "/v1/carts", nil, key, "k")
	s.problem(a, 503, "unavailable")
	require.Equal(t, "1", a.header.Get("Retry-After"))
	require.Contains(t, a.text("detail"), "same Idempotency-Key")
	s.exec(`drop trigger hang_up on carts`)
	// Until the server has taken the connection down, the first request counts as under way.
	require.Eventually(t, func() bool {
		a = c.call("POST", "/v1/carts", nil, key, "k")
		return a.status != 409
	}, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, 201, a.status, a.raw)
	require.Equal(t, 1, value[int](s, `select count(*) from carts`))
	require.Equal(t, 1, s.events())
}

// State, event and answer are one transaction: whatever stops one of them stops all.
func TestWritesAreWholeOrNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	cart := c.cart("moka-pot", 1)
	before := s.events()
	for _, table := range []string{"outbox", "orders", "idempotency_keys", "carts"} {
		identifier := pgx.Identifier{table}.Sanitize()
		s.exec(`create or replace function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$`)
		s.exec(`create trigger refuse before insert or update on ` + identifier + ` for each row execute function refuse()`)
		a := c.call("POST", "/v1/carts/"+cart+"/checkout", visa(), key, "k")
		s.problem(a, 500, "internal")
		require.NotContains(t, a.raw, "refuse")
		s.exec(`drop trigger refuse on ` + identifier)
		require.Equal(t, before, s.events(), table)
		require.Zero(t, value[int](s, `select count(*) from orders`), table)
		require.Zero(t, value[int](s, `select count(*) from idempotency_keys`), table)
		require.Zero(t, value[int](s, `select sum(reserved) from products`), table)
	}
	require.Equal(t, 202, c.call("POST", "/v1/carts/"+cart+"/checkout", visa(), key, "k").status)
}
