package handlers_test

import (
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/ratelimit"
)

// limits are none but those of the list.
func limits(t testing.TB, list string) ratelimit.Limits {
	t.Helper()
	all, err := ratelimit.Parse("signup:address=off,login:address=off,login:pair=off,login:account=off,checkout:account=off,checkout:address=off")
	require.NoError(t, err)
	some, err := ratelimit.Parse(list)
	require.NoError(t, err)
	for of, l := range some {
		if l != ratelimit.Defaults()[of] {
			all[of] = l
		}
	}
	return all
}

// newLimited is a shop behind a proxy on loopback.
func newLimited(t testing.TB, list string) *shop {
	t.Helper()
	return newShop(t, limitedBy(t, list))
}

func limitedBy(t testing.TB, list string) func(*handlers.Config) {
	return func(cfg *handlers.Config) {
		cfg.RateLimits, cfg.IPExtractor, cfg.StripeWebhookSecrets = limits(t, list), echo.ExtractIPFromXFFHeader(), []string{webhookSecret}
	}
}

// limited checks that the answer is a refusal by a limit, and returns after how many seconds the next is let through.
func (s *shop) limited(a answer) int {
	s.t.Helper()
	s.problem(a, 429, "rate-limited")
	after, err := strconv.Atoi(a.header.Get("Retry-After"))
	require.NoError(s.t, err)
	require.Positive(s.t, after)
	return after
}

func (s *shop) from(address, method, path string, body any) answer {
	s.t.Helper()
	return s.call(method, path, body, "X-Forwarded-For", address)
}

// Signups are limited by address, before anything is read for them; an IPv6 address is as good as its neighbours of the same 64 bits.
func TestSignupIsLimitedByAddress(t *testing.T) {
	t.Parallel()
	s := newLimited(t, "signup:address=2/24h")
	for _, addresses := range [][3]string{
		{"198.51.100.7", "::ffff:198.51.100.7", "198.51.100.8"},
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:3::1"},
	} {
		require.Equal(t, 422, s.from(addresses[0], "POST", "/v1/signup", map[string]any{}).status, "what is refused counts")
		require.Equal(t, 400, s.from(addresses[1], "POST", "/v1/signup", "x").status)
		for _, address := range addresses[:2] {
			require.InDelta(t, 12*3600, s.limited(s.from(address, "POST", "/v1/signup", credentials(uuid.NewString()+"@example.com"))), 600)
			s.limited(s.from(address, "POST", "/v1/signup", "x"))
		}
		require.Equal(t, 201, s.from(addresses[2], "POST", "/v1/signup", credentials(uuid.NewString()+"@example.com")).status)
	}
	require.Equal(t, 2, value[int](s, `select count(*) from users`))
	require.Equal(t, 4, value[int](s, `select count(*) from rate_limits`))
	require.Zero(t, value[int](s, `select count(*) from rate_limits where position('198.51'::bytea in id) > 0`))
}

// Logins are limited by address, by account and by both; for an account that there is not, as for one that there is.
func TestLoginIsLimited(t *testing.T) {
	t.Parallel()
	s := newLimited(t, "login:address=5/24h,login:pair=2/24h,login:account=3/24h")
	require.Equal(t, 201, s.call("POST", "/v1/signup", credentials("ada@example.com")).status)
	logIn := func(address, email, password string) answer {
		t.Helper()
		return s.call("POST", "/v1/sessions", map[string]any{"email": email, "password": password}, "X-Forwarded-For", address, "X-Correlation-ID", "same")
	}
	for i, email := range []string{"ada@example.com", "nobody@example.com"} {
		stranger, home, other := "192.0.2."+strconv.Itoa(i), "198.51.100."+strconv.Itoa(i), "203.0.113."+strconv.Itoa(i)
		require.Equal(t, 401, logIn(stranger, email, "a guess").status)
		require.Equal(t, 401, logIn(stranger, " "+email, "a guess").status)
		pair := logIn(stranger, email, "a guess")
		s.limited(pair)
		s.limited(logIn(stranger, email, "correct horse battery"))
		// What the pair refuses has used up nothing of the account's.
		want := 201
		if i == 1 {
			want = 401
		}
		require.Equal(t, want, logIn(home, email, "correct horse battery").status)
		account := logIn(other, email, "correct horse battery")
		s.limited(account)
		require.Equal(t, pair.raw, account.raw, "it does not say which")
		// Five from one address, whatever they are for.
		require.Equal(t, 401, logIn(stranger, "somebody.else@example.com", "a guess").status)
		s.limited(logIn(stranger, "yet.somebody@example.com", "a guess"))
	}
	require.Equal(t, 1, value[int](s, `select count(*) from sessions`))
}

// The account's own spelling is none of the limit's business.
func TestLoginLimitIsOfTheAccountHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	s := newLimited(t, "login:account=2/24h")
	require.Equal(t, 401, signIn(s, "ada@example.com", "a guess").status)
	require.Equal(t, 401, signIn(s, " Ada@EXAMPLE.com", "a guess").status)
	s.limited(signIn(s, "ADA@example.com ", "a guess"))
	require.Equal(t, 401, signIn(s, "adb@example.com", "a guess").status)
}

// Checkouts are limited by account and by address, repeats of one included; what leads to them, and the provider's word, is not.
func TestCheckoutIsLimited(t *testing.T) {
	t.Parallel()
	s := newLimited(t, "checkout:account=2/24h,checkout:address=4/24h")
	checkOut := func(c *customer, cart, address string) answer {
		t.Helper()
		return c.call("POST", "/v1/carts/"+cart+"/checkout", visa(), "X-Forwarded-For", address, key, "a key")
	}
	c, other := s.customer(), s.customer()
	cart := c.cart("filter-beans", 1)
	require.Equal(t, 202, checkOut(c, cart, "192.0.2.1").status)
	require.Equal(t, "true", checkOut(c, cart, "192.0.2.2").header.Get("Idempotent-Replayed"))
	next := c.cart("filter-beans", 1)
	s.limited(checkOut(c, next, "192.0.2.3"))
	require.Equal(t, "open", c.call("GET", "/v1/carts/"+next, nil).text("status"))

	for range 3 { // without a session, too
		require.Equal(t, 401, s.from("192.0.2.1", "POST", "/v1/carts/"+next+"/checkout", visa()).status)
	}
	s.limited(checkOut(other, other.cart("filter-beans", 1), "192.0.2.1"))
	require.Equal(t, 202, checkOut(other, other.cart("filter-beans", 1), "192.0.2.9").status)
	s.problem(s.from("192.0.2.1", "POST", "/v1/webhooks/stripe", "{}"), 400, "bad-signature")
}

// Processes count together. What one of them has refused it refuses again without the database; what nobody can count is not let through.
func TestLimitsHoldForAllProcesses(t *testing.T) {
	t.Parallel()
	s := newLimited(t, "signup:address=3/24h")
	refused := make(chan string, 100)
	other := newShopOn(t, s.pool, limitedBy(t, "signup:address=3/24h"), func(cfg *handlers.Config) {
		cfg.RateLimited = func(route, kind string) { refused <- route + ":" + kind }
	})
	for i, from := range []*shop{s, other, s} {
		require.Equal(t, 201, from.from("192.0.2.1", "POST", "/v1/signup", credentials(strconv.Itoa(i)+"@example.com")).status)
	}
	other.limited(other.from("192.0.2.1", "POST", "/v1/signup", credentials("x@example.com")))
	require.Equal(t, "signup:address", <-refused)
	require.Empty(t, refused)

	tx, err := s.pool.BeginTx(t.Context(), pgx.TxOptions{})
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select from rate_limits for update`)
	require.NoError(t, err)
	for range 20 {
		other.limited(other.from("192.0.2.1", "POST", "/v1/signup", credentials("x@example.com")))
	}
	a := s.from("192.0.2.1", "POST", "/v1/signup", credentials("x@example.com"))
	s.problem(a, 503, "unavailable")
	require.Equal(t, "1", a.header.Get("Retry-After"))
	require.NoError(t, tx.Rollback(t.Context()))
	s.limited(s.from("192.0.2.1", "POST", "/v1/signup", credentials("x@example.com")))
	require.Equal(t, 3, value[int](s, `select count(*) from users`))
	require.Zero(t, s.pool.Stat().AcquiredConns())
}

// When as many seconds have passed as Retry-After says, the next request is let through; before that, none.
func TestRetryAfterIsTrue(t *testing.T) {
	t.Parallel()
	s := newLimited(t, "login:account=1/24h")
	require.Equal(t, 401, signIn(s, "ada@example.com", "a guess").status)
	after := s.limited(signIn(s, "ada@example.com", "a guess"))
	require.LessOrEqual(t, after, 24*3600)
	passes := func(seconds int) {
		s.exec(`update rate_limits set tat = tat - make_interval(secs => $1)`, seconds)
	}
	passes(after - 3600)
	again := newShopOn(t, s.pool, limitedBy(t, "login:account=1/24h")) // which does not remember
	left := again.limited(signIn(again, "ada@example.com", "a guess"))
	require.True(t, left > 1800 && left <= 3600, left)
	passes(left)
	third := newShopOn(t, s.pool, limitedBy(t, "login:account=1/24h"))
	require.Equal(t, 401, signIn(third, "ada@example.com", "a guess").status)
}

// Counts that say nothing any more are cleared; the others hold.
func TestPurgeRateLimits(t *testing.T) {
	t.Parallel()
	s := newLimited(t, "signup:address=1/24h")
	for _, address := range []string{"192.0.2.1", "192.0.2.2"} {
		s.from(address, "POST", "/v1/signup", "x")
	}
	s.exec(`update rate_limits set tat = clock_timestamp() - interval '1 second' where id = (select id from rate_limits limit 1)`)
	n, err := handlers.Purge(t.Context(), s.pool)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Equal(t, 1, value[int](s, `select count(*) from rate_limits`))
	require.Equal(t, "u", value[string](s, `select relpersistence::text from pg_class where relname = 'rate_limits'`), "a count must not wait for a disk")
}
