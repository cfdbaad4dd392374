//go:build !race

package main_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whatever the service dies of between two steps of a payment, the next process asks what became of it and goes on: one intent under the
// event's id, one charge for a paid order, none for a declined one, one event that says so.
func TestMoneySurvivesKills(t *testing.T) {
	t.Parallel()
	s := newTill(t)
	for _, step := range []struct {
		point string          // where the process dies
		harm  map[string]harm // or what the provider was asked when it does
		asked string          // what the provider is asked in all
	}{
		{"payment.begin.after", nil, "find create confirm"},
		{"", map[string]harm{"create": {kill: true}}, "create find create confirm"},
		{"", map[string]harm{"create": {kill: true, after: true}}, "create find get confirm"},
		{"payment.intent.before", nil, "create find get confirm"},
		{"payment.intent.after", nil, "create get confirm"},
		{"", map[string]harm{"confirm": {kill: true}}, "create confirm get confirm"},
		{"", map[string]harm{"confirm": {kill: true, after: true}}, "create confirm get"},
		{"payment.confirm.after", nil, "create confirm get"},
		{"deliver.dedupe", nil, "create confirm get"},
		{"deliver.commit.before", nil, "create confirm get"},
		{"deliver.commit.after", nil, "create confirm"},
	} {
		for method, end := range map[string]struct {
			status  string
			charges int
		}{"pm_card_visa": {"paid", 1}, "pm_card_chargeDeclined": {"payment_failed", 0}} {
			s.quiet()
			if step.point != "" {
				s.arm(step.point, "kill")
			}
			order, key := s.checkout(method, step.harm)
			s.p.killed()
			s.restart()
			s.ends(order, key, end.status, end.charges)
			require.Equal(t, step.asked, s.path(key), "%s %v: %s", step.point, step.harm, method)
		}
	}
}

// quiet waits until there is nothing that could die at a point in place of a payment.
func (s *till) quiet() {
	s.t.Helper()
	s.p.until("all is quiet", s.holds(`select not exists (select from outbox) and not exists (select from holds)
		and (select count(*) from emails) = (select count(*) from users) + (select count(*) from orders where status = 'paid')`))
}

// path is what the provider was asked for a payment, without the names of intents.
func (s *till) path(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ops []string
	for _, asked := range s.asked[key] {
		op, _, _ := strings.Cut(asked, " ")
		ops = append(ops, op)
	}
	return strings.Join(ops, " ")
}

// An answer that does not come in time says nothing, whether the work was done or not: the next attempt asks.
func TestMoneyAsksAfterTimeouts(t *testing.T) {
	t.Parallel()
	s := newTill(t)
	type checkout struct{ order, key, asked string }
	var all []checkout
	for _, c := range []struct {
		what, asked string
		harm        harm
	}{
		{"create", "create find get confirm", harm{hang: true, after: true}},
		{"create", "create find create confirm", harm{hang: true}},
		{"confirm", "create confirm get", harm{hang: true, after: true}},
		{"confirm", "create confirm get confirm", harm{hang: true}},
		{"create", "create find create confirm", harm{status: 429}},
		{"confirm", "create confirm get confirm", harm{status: 503}},
	} {
		order, key := s.checkout("pm_card_visa", map[string]harm{c.what: c.harm})
		s.took(key, c.what)
		all = append(all, checkout{order, key, c.asked})
	}
	for _, c := range all {
		s.ends(c.order, c.key, "paid", 1)
		require.Equal(t, c.asked, s.path(c.key))
	}
	order, key := s.checkout("pm_card_chargeDeclined", map[string]harm{"confirm": {after: true}})
	s.ends(order, key, "payment_failed", 0)
	require.Equal(t, "create confirm get", s.path(key))
}

// A result that comes late comes by a webhook: verified, once in effect however often it is sent, and whatever dies.
func TestMoneyByWebhook(t *testing.T) {
	t.Parallel()
	s := newTill(t)
	for _, paid := range []bool{true, false} {
		status, charges := "payment_failed", 0
		if paid {
			status, charges = "paid", 1
		}
		order, key := s.checkout("pm_slow", nil)
		s.took(key, "get")
		s.refuse(key, true)
		require.NoError(t, s.stripe.Settle(s.stripe.Intents()[len(s.stripe.Intents())-1].ID, paid))
		for name, forged := range map[string]struct {
			secret string
			age    time.Duration
		}{"another secret": {"whsec_other", 0}, "too old": {hookSecret, time.Hour}} {
			a, err := s.hook(order, forged.secret, forged.age)
			require.NoError(t, err)
			require.Equal(t, 400, a.status, name)
		}
		require.Equal(t, "processing", s.text(`select status from orders where id = $1`, order))

		// Dead before the commit: nothing has happened. Dead after it: the sender does not know, and sends it again.
		s.arm("producer.commit.before", "kill")
		_, err := s.hook(order, hookSecret, 0)
		require.Error(t, err)
		s.p.killed()
		_, err = s.hook(order, hookSecret, 0)
		require.Error(t, err, "nobody is there")
		s.restart()
		require.Equal(t, "processing", s.text(`select status from orders where id = $1`, order))
		s.arm("producer.commit.after", "kill")
		_, err = s.hook(order, hookSecret, 0)
		require.Error(t, err)
		s.p.killed()
		s.restart()
		s.hooked(order, "duplicate")
		s.refuse(key, false)
		s.ends(order, key, status, charges)
		s.hooked(order, "duplicate")
	}

	// It overtakes the answer that it is about.
	order, key := s.checkout("pm_card_visa", map[string]harm{"confirm": {hang: true, after: true}})
	s.took(key, "confirm")
	s.p.until("it is charged", func() bool { return s.stripe.Intents()[2].Charges == 1 })
	s.hooked(order, "settled")
	s.ends(order, key, "paid", 1)
	require.Equal(t, "create confirm", s.path(key), "what is settled is not asked about")
}

// A payment of which nobody knows what became is a letter that says so. A replay asks; giving it up has to be forced, and a charge that
// becomes known after that still pays the order.
func TestMoneyOutcomeUnknown(t *testing.T) {
	t.Parallel()
	s := newTill(t)
	require.NoError(t, s.p.cmd.Process.Kill())
	<-s.p.ended
	s.restart("OUTBOX_MAX_ATTEMPTS=2")
	letter := func() (order, key, path string) {
		order, key = s.checkout("pm_card_visa", map[string]harm{"confirm": {after: true, mute: true}})
		s.p.until("it is a dead letter", s.holds(`select exists (select from discarded_jobs where event_id = $1 and state = 'dead')`, key))
		require.Contains(t, s.text(`select error from discarded_jobs where event_id = $1`, key), "outcome unknown")
		path = "/admin/dlq/" + s.text(`select id::text from discarded_jobs where event_id = $1`, key)
		a := s.p.call("POST", path+"/dismiss", map[string]any{"reason": "nobody asks for it"})
		require.Equal(t, 409, a.status, a.raw)
		require.Equal(t, "outcome-unknown", a.body["type"].(string)[strings.LastIndex(a.text("type"), "/")+1:], a.raw)
		code, _, said := command(t, s.pool.Config().ConnString(), "dlq", "dismiss", strings.TrimPrefix(path, "/admin/dlq/"), "--reason=nobody asks for it")
		require.Equal(t, 1, code)
		require.Contains(t, said, "may have been charged")
		require.True(t, s.holds(`select state = 'dead' from discarded_jobs where event_id = $1`, key)())
		return order, key, path
	}

	order, key, path := letter()
	s.refuse(key, false)
	require.Equal(t, 202, s.p.call("POST", path+"/replay", map[string]any{"reason": "the provider is back"}).status)
	s.ends(order, key, "paid", 1)
	require.Equal(t, "replayed", s.text(`select state from discarded_jobs where event_id = $1`, key))

	order, key, path = letter()
	a := s.p.call("POST", path+"/dismiss", map[string]any{"reason": "the customer paid in cash", "force": true})
	require.Equal(t, 200, a.status, a.raw)
	require.Contains(t, s.text(`select detail ->> 'outcome_unknown' from audit where action = 'dismiss'`), order)
	s.hooked(order, "settled")
	s.exact(order, key, "paid", 1)
}
