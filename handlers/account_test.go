package handlers_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func TestAccountTellsThePlan(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	a := c.call("GET", "/v1/account", nil)
	require.Equal(t, 200, a.status, a.raw)
	require.Equal(t, c.email, a.text("user", "email"))
	require.Equal(t, "A customer", a.text("user", "name"))
	require.Equal(t, "setting_up", a.text("plan", "status"))
	require.Equal(t, "Setting up your account…", a.text("plan", "message"))
	require.Nil(t, a.at("plan", "trial_ends_at"))
	require.Equal(t, "pending", a.text("welcome_email", "status"))
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	require.Empty(t, a.header.Get("Preference-Applied"))

	s.exec(`update users set created_at = now() - interval '61 seconds'`)
	require.Equal(t, "delayed", c.call("GET", "/v1/account", nil).text("plan", "status"))

	s.exec(`insert into subscriptions (user_id, plan, trial_ends_at) values ($1, 'trial', '2099-01-02T03:04:05Z')`, c.id)
	s.exec(`insert into emails (event_id, kind, user_id, message_id) values ($1, 'welcome', $2, 'x')`, uuid.New(), c.id)
	a = c.call("GET", "/v1/account", nil)
	require.Equal(t, "trialing", a.text("plan", "status"))
	require.Equal(t, "2099-01-02T03:04:05Z", a.text("plan", "trial_ends_at"))
	require.Equal(t, "Your trial runs until 2 January 2099.", a.text("plan", "message"))
	require.Equal(t, "sent", a.text("welcome_email", "status"))

	s.exec(`update subscriptions set trial_ends_at = now() - interval '1 second'`)
	require.Equal(t, "expired", c.call("GET", "/v1/account", nil).text("plan", "status"))
}

func TestAccountWaitsForThePlan(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	waiting := make(chan answer, 1)
	go func() {
		a, _ := s.try(t.Context(), "GET", "/v1/account", nil, "Authorization", "Bearer "+c.token, "Prefer", `respond-async, wait=300; x="y"`)
		waiting <- a
	}()
	// The plan comes once the request waits for it: the database knows the looks.
	s.somebodyWaits()
	s.exec(`insert into subscriptions (user_id, plan, trial_ends_at) values ($1, 'trial', now() + interval '14 days')`, c.id)
	select {
	case a := <-waiting:
		require.Equal(t, "trialing", a.text("plan", "status"), a.raw)
		require.Equal(t, "wait=30", a.header.Get("Preference-Applied"))
	case <-time.After(10 * time.Second):
		t.Fatal("the answer did not come with the plan")
	}
}

func TestAccountAnswersWhenTheWaitIsOver(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	c := s.customer()
	began := time.Now()
	a := c.call("GET", "/v1/account", nil, "Prefer", "wait=1")
	require.Equal(t, 200, a.status, a.raw)
	require.Equal(t, "setting_up", a.text("plan", "status"))
	require.Equal(t, "wait=1", a.header.Get("Preference-Applied"))
	require.GreaterOrEqual(t, time.Since(began), time.Second)

	for _, ignored := range []string{"wait", "wait=", "wait=-1", "wait=x", "wait=1.5", "waits=1", `wait="`} {
		a := c.call("GET", "/v1/account", nil, "Prefer", ignored)
		require.Equal(t, 200, a.status, ignored)
		require.Empty(t, a.header.Get("Preference-Applied"), ignored)
	}
	require.Equal(t, "wait=0", c.call("GET", "/v1/account", nil, "Prefer", `WAIT="0"`).header.Get("Preference-Applied"))
}
