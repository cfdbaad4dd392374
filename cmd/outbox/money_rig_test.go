//go:build !race

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v85/webhook"

	"github.com/pgoutbox/pgoutbox/internal/faultkit"
	"github.com/pgoutbox/pgoutbox/internal/mailsink"
	"github.com/pgoutbox/pgoutbox/internal/payments/stripefake"
)

const hookSecret = "whsec_of_the_walk"

// harm comes to one request at the provider. It says whether the work is done and whether the answer arrives; kill is of the service, before
// anything is answered.
type harm struct {
	after, kill, hang bool
	mute              bool // from then on nobody is told anything of the payment
	status            int
}

func (h harm) none() bool { return h == harm{} }

// till is a shop whose processes can be killed, its customer, and the Stripe that outlives them.
type till struct {
	*faulty
	p      served
	c      *customer
	stripe *stripefake.Stripe

	mu      sync.Mutex
	next    []map[string]harm          // for payments to come, by what is asked: create, find, get, confirm
	harms   map[string]map[string]harm // by idempotency key
	keys    map[string]string          // of intents
	asked   map[string][]string        // by idempotency key
	refuses map[string]bool            // keys of which nobody is told anything, until that is taken back
}

func newTill(t *testing.T) *till {
	t.Helper()
	sink, err := mailsink.Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { _ = sink.Close(context.Background()) })
	s := &till{
		stripe: stripefake.New("sk_test_walk", nil),
		harms:  map[string]map[string]harm{}, keys: map[string]string{}, asked: map[string][]string{}, refuses: map[string]bool{},
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.faulty = newFaulty(t, "SMTP_URL="+sink.URL(), "OUTBOX_PAYMENTS=stripe", "STRIPE_SECRET_KEY=sk_test_walk", "STRIPE_WEBHOOK_SECRET=whsec_before, "+hookSecret,
		faultkit.EnvStripeURL+"="+server.URL, "OUTBOX_RETRY_BASE=20ms", "OUTBOX_RETRY_MAX=250ms", "OUTBOX_FAULTS_EVERY=1s",
		"OUTBOX_ADMIN_TOKENS=anna:a-token-of-the-walk", "OUTBOX_RATE_LIMITS=off")
	s.restart()
	s.c = newCustomer(t, s.p.process, "walker@example.com")
	return s
}

// restart starts a process where there is none, and has whatever the last one left taken up at once: that goes by times.
func (s *till) restart(env ...string) {
	s.t.Helper()
	path, err := faultyBinary()
	require.NoError(s.t, err)
	s.exec(`update relay_state set beat_at = '-infinity'`)
	s.exec(`update river_job set attempted_at = attempted_at - interval '5 minutes' where state = 'running'`)
	s.exec(`update holds set changed_at = changed_at - interval '5 minutes'`)
	s.mu.Lock()
	s.p = served{} // whoever kills finds none
	s.mu.Unlock()
	p := startServeOf(s.t, path, "all", append(s.env[:len(s.env):len(s.env)], env...))
	p.token = "a-token-of-the-walk"
	s.mu.Lock()
	s.p = p
	s.mu.Unlock()
	if s.c != nil {
		s.c.p = p.process
	}
}

func (s *till) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.pool.Exec(s.t.Context(), sql, args...)
	require.NoError(s.t, err, sql)
}

// text is the one value of a query.
func (s *till) text(sql string, args ...any) (v string) {
	s.t.Helper()
	require.NoError(s.t, s.pool.QueryRow(s.t.Context(), sql, args...).Scan(&v), sql)
	return v
}

// checkout buys, and returns the order and the event that asks for its payment. Harm comes to that payment's requests, once each.
func (s *till) checkout(method string, harms map[string]harm) (order, key string) {
	s.t.Helper()
	s.mu.Lock()
	s.next = append(s.next, maps.Clone(harms))
	s.mu.Unlock()
	order = s.c.checkout(method, "espresso-beans")
	return order, s.text(`select checkout_event_id::text from orders where id = $1`, order)
}

// refuse has the provider tell nothing of a payment, or again.
func (s *till) refuse(key string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses[key] = on
}

// took waits until the provider was asked something for a payment.
func (s *till) took(key, what string) {
	s.t.Helper()
	s.p.until("it is asked to "+what, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(strings.Join(s.asked[key], " "), what)
	})
}

// ends waits for the order's end, and holds the provider's ledger, what it was asked, and the database to it.
func (s *till) ends(order, key, status string, charges int) {
	s.t.Helper()
	s.p.until("order "+status, s.holds(`select status <> 'processing' from orders where id = $1`, order))
	s.p.until("the payment is processed", s.holds(`select exists (select from processed_events where consumer = 'payments' and event_id = $1)
		and not exists (select from holds where event_id = $1 and settled_at is null)`, key))
	s.exact(order, key, status, charges)
}

func (s *till) exact(order, key, status string, charges int) {
	s.t.Helper()
	var intents []stripefake.Intent
	for _, i := range s.stripe.Intents() {
		if i.OrderID == order {
			intents = append(intents, i)
		}
	}
	require.Len(s.t, intents, 1, "one intent")
	require.Equal(s.t, charges, intents[0].Charges)
	require.Equal(s.t, key, intents[0].EventID)
	s.mu.Lock()
	for _, asked := range s.asked[key] {
		op, id, _ := strings.Cut(asked, " ")
		require.Contains(s.t, []string{"", intents[0].ID}, id, "%s of another intent", op)
	}
	s.mu.Unlock()
	state := map[string]string{"paid": "succeeded", "payment_failed": "declined"}[status]
	require.Equal(s.t, status+" "+state+" "+intents[0].ID, s.text(`select o.status || ' ' || p.state || ' ' || p.intent_id
		from orders o join payments p on p.order_id = o.id where o.id = $1 and p.idempotency_key = $2`, order, key))
	require.Equal(s.t, "order."+status, s.text(`select string_agg(type, ' ') from (select type, key from events union all select type, key from outbox) e
		where key = $1`, order), "one event")
}

// hook sends the webhook of the order's intent, as it is now, and returns the answer; header goes in place of a good signature.
func (s *till) hook(order string, secret string, age time.Duration) (answer, error) {
	s.t.Helper()
	var payload []byte
	for _, i := range s.stripe.Intents() {
		if i.OrderID == order {
			var err error
			payload, err = s.stripe.Event(i.ID)
			require.NoError(s.t, err)
		}
	}
	require.NotEmpty(s.t, payload)
	header := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: payload, Secret: secret, Timestamp: time.Now().Add(-age)}).Header
	return call(s.t.Context(), "POST", s.p.api+"/v1/webhooks/stripe", json.RawMessage(payload), "Stripe-Signature", header)
}

// hooked is hook of which the outcome is known.
func (s *till) hooked(order, outcome string) {
	s.t.Helper()
	a, err := s.hook(order, hookSecret, 0)
	require.NoError(s.t, err)
	require.Equal(s.t, 200, a.status, a.raw)
	require.Equal(s.t, outcome, a.text("outcome"))
}

// ServeHTTP is the provider, and the harm before and after its work.
func (s *till) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h := s.enter(r)
	if h.status != 0 {
		w.WriteHeader(h.status)
		_, _ = io.WriteString(w, `{"error":{"type":"api_error"}}`)
		return
	}
	done := httptest.NewRecorder()
	if h.none() || h.after {
		s.stripe.ServeHTTP(done, r)
		s.learn(r, done.Body.Bytes())
	}
	switch {
	case h.none():
		w.WriteHeader(done.Code)
		_, _ = w.Write(done.Body.Bytes())
		return
	case h.kill:
		s.mu.Lock()
		_ = s.p.cmd.Process.Kill()
		s.mu.Unlock()
	case h.hang:
		<-r.Context().Done() // the service gives up
	}
	panic(http.ErrAbortHandler)
}

// enter notes what is asked, and draws the harm that comes to it.
func (s *till) enter(r *http.Request) harm {
	s.mu.Lock()
	defer s.mu.Unlock()
	what, id := "get", strings.TrimPrefix(r.URL.Path, "/v1/payment_intents/")
	key := s.keys[id]
	switch {
	case r.URL.Path == "/v1/payment_intents":
		what, id, key = "create", "", r.Header.Get("Idempotency-Key")
	case id == "search":
		what, id, key = "find", "", strings.Trim(strings.TrimPrefix(r.URL.Query().Get("query"), "metadata['event_id']:"), "'")
	case strings.HasSuffix(id, "/confirm"):
		what, id = "confirm", strings.TrimSuffix(id, "/confirm")
		key = s.keys[id]
	}
	s.asked[key] = append(s.asked[key], strings.TrimSpace(what+" "+id))
	if _, known := s.harms[key]; !known && len(s.next) > 0 {
		s.harms[key], s.next = s.next[0], s.next[1:]
		if s.harms[key] == nil {
			s.harms[key] = map[string]harm{}
		}
	}
	h, ok := s.harms[key][what]
	delete(s.harms[key], what)
	if h.mute {
		s.refuses[key] = true
	}
	if !ok && s.refuses[key] {
		return harm{status: http.StatusInternalServerError}
	}
	return h
}

// learn keeps which intent was made under which key.
func (s *till) learn(r *http.Request, body []byte) {
	var made struct{ ID string }
	if key := r.Header.Get("Idempotency-Key"); r.URL.Path == "/v1/payment_intents" && key != "" && json.Unmarshal(body, &made) == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.keys[made.ID] = key
	}
}
