package handlers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSessionLetsInUntilLogout(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	signup := s.call("POST", "/v1/signup", credentials("ada@example.com"))
	require.Equal(t, 201, signup.status, signup.raw)

	a := s.call("POST", "/v1/sessions", map[string]any{"email": " ADA@example.com", "password": "correct horse battery"})
	require.Equal(t, 201, a.status, a.raw)
	expires, err := time.Parse(time.RFC3339, a.text("expires_at"))
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(a.text("expires_at"), "Z"))
	require.WithinDuration(t, time.Now().AddDate(0, 0, 30), expires, time.Hour)
	require.Len(t, a.text("token"), 43)
	require.Zero(t, value[int](s, `select count(*) from sessions where position($1::bytea in token_hash) > 0`, []byte(a.text("token"))))

	auth := "bearer " + a.text("token")
	account := s.call("GET", "/v1/account", nil, "Authorization", auth)
	require.Equal(t, 200, account.status, account.raw)
	require.Equal(t, signup.text("user_id"), account.text("user", "user_id"))

	require.Equal(t, 204, s.call("DELETE", "/v1/sessions/current", nil, "Authorization", auth).status)
	s.problem(s.call("GET", "/v1/account", nil, "Authorization", auth), 401, "unauthenticated")
	s.problem(s.call("DELETE", "/v1/sessions/current", nil, "Authorization", auth), 401, "unauthenticated")
}

func TestLoginTellsNobodyWhoHasAnAccount(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	require.Equal(t, 201, s.call("POST", "/v1/signup", credentials("ada@example.com")).status)
	wrong := s.call("POST", "/v1/sessions", map[string]any{"email": "ada@example.com", "password": "not her password"}, "X-Correlation-ID", "same")
	nobody := s.call("POST", "/v1/sessions", map[string]any{"email": "nobody@example.com", "password": "correct horse battery"}, "X-Correlation-ID", "same")
	dummy := s.call("POST", "/v1/sessions", map[string]any{"email": "nobody@example.com", "password": "nobody's password"}, "X-Correlation-ID", "same")
	s.problem(wrong, 401, "unauthenticated")
	require.Equal(t, wrong.raw, nobody.raw)
	require.Equal(t, wrong.raw, dummy.raw)
	require.Zero(t, value[int](s, `select count(*) from sessions`))
}

func TestSessionIsRequired(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	for _, r := range [][2]string{
		{"GET", "/v1/account"},
		{"POST", "/v1/carts"},
		{"GET", "/v1/carts/" + c.id.String()},
		{"POST", "/v1/carts/" + c.id.String() + "/items"},
		{"DELETE", "/v1/carts/" + c.id.String() + "/items/moka-pot"},
		{"POST", "/v1/carts/" + c.id.String() + "/checkout"},
		{"GET", "/v1/orders"},
		{"GET", "/v1/orders/" + c.id.String()},
		{"DELETE", "/v1/sessions/current"},
	} {
		for _, authorization := range []string{"", "Bearer", "Bearer x", "Basic " + c.token, c.token, "Bearer " + strings.Repeat("A", 43), "Bearer " + c.token + "="} {
			a := s.call(r[0], r[1], nil, "Authorization", authorization)
			s.problem(a, 401, "unauthenticated")
			require.Equal(t, "Bearer", a.header.Get("WWW-Authenticate"))
		}
	}
	s.exec(`update sessions set expires_at = now() - interval '1 second'`)
	s.problem(c.call("GET", "/v1/account", nil), 401, "unauthenticated")
}
