package handlers_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
)

func credentials(email string) map[string]any {
	return map[string]any{"email": email, "password": "correct horse battery", "name": "Ada"}
}

func TestSignupWritesUserAndEvent(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	a := s.call("POST", "/v1/signup", map[string]any{
		"email": "  Ada@Example.com ", "password": "pässwörd 🐎", "name": " Ada Lovelace ",
	}, "X-Correlation-ID", "first.walk-1")
	require.Equal(t, 201, a.status, a.raw)
	require.Equal(t, "setting_up", a.text("status"))
	require.Equal(t, "first.walk-1", a.text("correlation_id"))
	require.Equal(t, "first.walk-1", a.header.Get("X-Correlation-ID"))
	require.Len(t, a.body, 4, a.raw)

	e := s.lastEvent(a.text("user_id"))
	require.Equal(t, "user.signed_up", e.eventType)
	require.Equal(t, a.text("event_id"), e.id)
	require.Equal(t, "first.walk-1", e.correlationID)
	require.Equal(t, map[string]any{"user_id": a.text("user_id"), "plan": "trial"}, e.data)

	require.Equal(t, "Ada@Example.com", value[string](s, `select email from users`))
	require.Equal(t, "Ada Lovelace", value[string](s, `select name from users`))
	require.Equal(t, e.id, value[uuid.UUID](s, `select signup_event_id from users`).String())
	require.Contains(t, value[string](s, `select password_hash from users`), handlers.CheapHash)
}

func TestSignupRefusesATakenAddress(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	require.Equal(t, 201, s.call("POST", "/v1/signup", credentials("ada@example.com")).status)
	s.problem(s.call("POST", "/v1/signup", credentials("ADA@example.com")), 409, "email-taken", "/email")
	require.Equal(t, 1, s.events())
}

func TestSignupOfOneAddressAtTheSameTime(t *testing.T) {
	t.Parallel()
	// All hash at once: on a busy machine a queue of them would outlast the wait for a turn, which is answered with 503.
	s := newShop(t, func(cfg *handlers.Config) { cfg.PasswordHashes = 8 })
	created := 0
	for _, a := range together(t, 8, func(int) (answer, error) {
		return s.try(t.Context(), "POST", "/v1/signup", credentials("ada@example.com"))
	}) {
		if a.status == 201 {
			created++
			continue
		}
		s.problem(a, 409, "email-taken", "/email")
	}
	require.Equal(t, 1, created)
	require.Equal(t, 1, s.events())
	require.Equal(t, 1, value[int](s, `select count(*) from users`))
}

func TestSignupRefusesFields(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for name, c := range map[string]struct {
		field string
		value any
	}{
		"no at sign":                {"email", "ada.example.com"},
		"display name":              {"email", "Ada <ada@example.com>"},
		"two addresses":             {"email", "a@example.com, b@example.com"},
		"quoted":                    {"email", `"a b"@example.com`},
		"a line break":              {"email", "ada@example.com\r\nBcc: eve@example.com"},
		"a literal":                 {"email", "ada@[127.0.0.1]"},
		"a hyphen's host":           {"email", "ada@-example.com"},
		"a long local part":         {"email", strings.Repeat("a", 65) + "@example.com"},
		"a long address":            {"email", "ada@" + strings.Repeat("long.", 50) + "example.com"},
		"an empty address":          {"email", "   "},
		"a short password":          {"password", "1234567"},
		"a short password in UTF-8": {"password", "ääääääü"},
		"a long password":           {"password", strings.Repeat("a", 129)},
		"an empty password":         {"password", ""},
		"an empty name":             {"name", " \t "},
		"a long name":               {"name", strings.Repeat("ä", 201)},
		"a name with a line break":  {"name", "Ada\nLovelace"},
		"a number":                  {"name", 12},
		"an object":                 {"password", map[string]any{"x": 1}},
		"null":                      {"email", nil},
	} {
		body := credentials("ada@example.com")
		body[c.field] = c.value
		a := s.call("POST", "/v1/signup", body)
		require.Equal(t, []string{"/" + c.field}, a.pointers(), name)
		s.problem(a, 422, "validation", "/"+c.field)
	}
	s.problem(s.call("POST", "/v1/signup", map[string]any{}), 422, "validation", "/email", "/password", "/name")
	require.Zero(t, s.events())
	require.Zero(t, value[int](s, `select count(*) from users`))
}

func TestSignupTakesTheLongest(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	a := s.call("POST", "/v1/signup", map[string]any{
		"email": strings.Repeat("a", 64) + "@example.com", "password": strings.Repeat("🐎🐴", 64), "name": strings.Repeat("ä", 200),
	})
	require.Equal(t, 201, a.status, a.raw)
}
