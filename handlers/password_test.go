package handlers_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

func signIn(s *shop, email, password string) answer {
	s.t.Helper()
	return s.call("POST", "/v1/sessions", map[string]any{"email": email, "password": password})
}

// What attackers try first is refused, and said without being repeated; what is as long and on no list is taken.
func TestSignupRefusesPasswordsThatAreTriedFirst(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for _, bad := range []string{
		"Password1", "QWERTYUIOP", "iloveyou", "p@ssw0rd", "ｐａｓｓｗｏｒｄ", "12345678", "aaaaaaaa", strings.Repeat("🐎", 128), "abcdefghij", "98765432",
		"lovelace.ada@example.com", "LOVELACE.ADA@EXAMPLE.COM", "Lovelace.Ada", "lovelaceada", "example.com", "Ada Lovelace", "Lovelace", "pgoutbox", "PG-Outbox!",
	} {
		a := s.call("POST", "/v1/signup", map[string]any{"email": "lovelace.ada@example.com", "password": bad, "name": "Ada Lovelace"})
		require.Equal(t, 422, a.status, bad)
		s.problem(a, 422, "validation", "/password")
		require.NotContains(t, a.raw, bad)
	}
	require.Contains(t, s.call("POST", "/v1/signup", map[string]any{"email": "a@b", "password": "password", "name": "x"}).raw, "is among the passwords that attackers try first")
	require.Zero(t, value[int](s, `select count(*) from users`))
	for i, good := range []string{"correct horse", "pássword", "lovelace 1843", "        x       ", "abcdefgi", "\t\t\u00e9\u00e8\u00e9\u00e8\u00e9\u00e8"} {
		a := s.call("POST", "/v1/signup", map[string]any{"email": "lovelace." + strings.Repeat("x", i+1) + "@example.com", "password": good, "name": "Ada Lovelace"})
		require.Equal(t, 201, a.status, "%q: %s", good, a.raw)
	}
}

// The same password is written in two ways by two systems, and lets in either way; its length is that of what people see of it.
func TestPasswordsAreNormalised(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	composed, decomposed := "caf\u00e9 cr\u00e8me", "cafe\u0301 cre\u0300me"
	require.NotEqual(t, composed, decomposed)
	for email, kept := range map[string]string{"one@example.com": composed, "other@example.com": decomposed} {
		body := credentials(email)
		body["password"] = kept
		a := s.call("POST", "/v1/signup", body)
		require.Equal(t, 201, a.status, a.raw)
		for _, given := range []string{composed, decomposed} {
			require.Equal(t, 201, signIn(s, email, given).status, "%q for %q", given, kept)
		}
		s.problem(signIn(s, email, "cafe creme"), 401, "unauthenticated")
	}
	pair := "e\u0301i\u0301" // two characters, written as four
	for password, want := range map[string]int{
		strings.Repeat(pair, 3) + "a": 422, strings.Repeat(pair, 4): 201, strings.Repeat(pair, 64): 201, strings.Repeat(pair, 64) + "a": 422,
	} {
		body := credentials(uuid.NewString() + "@example.com")
		body["password"] = password
		require.Equal(t, want, s.call("POST", "/v1/signup", body).status, "%q", password)
	}
}

// A hash that was made with less becomes one of today with the next login, and lets in as before.
func TestLoginRenewsAnOldHash(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	old, err := argon2id.CreateHash("correct horse battery", &argon2id.Params{Memory: 8 * 1024, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	require.NoError(t, err)
	s.exec(`update users set password_hash = $1`, old)
	s.problem(signIn(s, c.email, "not the password"), 401, "unauthenticated")
	require.Equal(t, old, value[string](s, `select password_hash from users`))
	require.Equal(t, 201, signIn(s, c.email, "correct horse battery").status)
	renewed := value[string](s, `select password_hash from users`)
	require.Contains(t, renewed, handlers.CheapHash)
	require.Equal(t, 201, signIn(s, c.email, "correct horse battery").status)
	require.Equal(t, renewed, value[string](s, `select password_hash from users`))
}

// While signups fill the queue to hash, checkouts go through: who waits for a turn has no connection.
func TestSignupsDoNotStarveCheckouts(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	pool := testdb.SmallPool(t, s.pool, 2)
	e, turns := handlers.NewAPIAndTurns(handlers.Config{Pool: pool, PasswordHashes: 1, Logger: slog.New(slog.DiscardHandler)})
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	s.url = server.URL
	c := s.customer()
	carts := []string{c.cart("filter-beans", 1), c.cart("filter-beans", 1), c.cart("filter-beans", 1)}

	turns.Taken <- struct{}{}
	flood := make(chan answer, 20)
	for range cap(flood) {
		go func() {
			a, err := s.try(t.Context(), "POST", "/v1/signup", credentials("flood@example.com"))
			if err != nil {
				a.raw = err.Error()
			}
			flood <- a
		}()
	}
	require.Eventually(t, func() bool { return turns.Waiting() > 4 }, 20*time.Second, time.Millisecond, "more than there are connections")
	for _, cart := range carts {
		a := c.call("POST", "/v1/carts/"+cart+"/checkout", visa())
		require.Equal(t, 202, a.status, a.raw)
	}
	require.Zero(t, value[int](s, `select count(*) from users where email like 'flood%'`))
	<-turns.Taken
	for range cap(flood) {
		a := <-flood
		require.Contains(t, []int{201, 409, 503}, a.status, a.raw)
		require.True(t, a.status != 503 || a.header.Get("Retry-After") != "", a.raw)
	}
}
