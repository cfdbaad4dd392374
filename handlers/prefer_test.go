package handlers_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
)

// statements counts by name what the API's own pool sends, and may hold one of them up.
type statements struct {
	mu   sync.Mutex
	sent map[string]int
	held string // the statement that does not get through until the test ends
	end  chan struct{}
}

func (s *statements) note(sql string) {
	name, _, _ := strings.Cut(strings.TrimPrefix(sql, "-- name: "), " ")
	s.mu.Lock()
	s.sent[name]++
	s.mu.Unlock()
}

func (s *statements) count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent[name]
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	s.note(q.SQL)
	if s.held != "" && strings.HasPrefix(q.SQL, "-- name: "+s.held+" ") {
		<-s.end
	}
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (s *statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (s *statements) TraceBatchQuery(_ context.Context, _ *pgx.Conn, q pgx.TraceBatchQueryData) {
	s.note(q.SQL)
}
func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// counted is a shop whose API has a pool of its own that counts, and holds up the one statement.
func counted(t *testing.T, held string) (*shop, *statements) {
	t.Helper()
	sent := &statements{sent: map[string]int{}, held: held, end: make(chan struct{})}
	s := newShop(t, func(cfg *handlers.Config) {
		config := cfg.Pool.Config()
		config.ConnConfig.Tracer = sent
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		cfg.Pool = pool
	})
	t.Cleanup(func() { close(sent.end) })
	return s, sent
}

func (c *customer) waits(path string) <-chan answer {
	waiting := make(chan answer, 1)
	go func() {
		a, _ := c.try(c.t.Context(), "GET", path, nil, "Authorization", "Bearer "+c.token, "Prefer", "wait=30")
		waiting <- a
	}()
	return waiting
}

func (s *shop) answered(waiting <-chan answer) answer {
	s.t.Helper()
	select {
	case a := <-waiting:
		require.Equal(s.t, 200, a.status, a.raw)
		require.Equal(s.t, "wait=30", a.header.Get("Preference-Applied"))
		return a
	case <-time.After(20 * time.Second):
		s.t.Fatal("the wait does not end")
		return answer{}
	}
}

// reaches waits until the API has sent a statement so many times more.
func (s *statements) reaches(t *testing.T, name string, more int) {
	t.Helper()
	before := s.count(name)
	require.Eventually(t, func() bool { return s.count(name) >= before+more }, 20*time.Second, 2*time.Millisecond, name)
}

// TestWaitEndsWithTheEvent: of nothing but the consumer's work, committed with the note that the event is processed.
func TestWaitEndsWithTheEvent(t *testing.T) {
	t.Parallel()
	t.Run("account", func(t *testing.T) {
		t.Parallel()
		s, sent := counted(t, "SubscriptionsStarted")
		c := s.customer()
		s.exec(`insert into consumers (name, kind) values ('billing', 'tx')`)
		waiting := c.waits("/v1/account")
		sent.reaches(t, "WaitStates", 2)
		s.exec(`with plan as (insert into subscriptions (user_id, plan, trial_ends_at) values ($1, 'trial', now() + interval '14 days'))
			insert into processed_events (consumer, event_id) select 'billing', signup_event_id from users where id = $1`, c.id)
		require.Equal(t, "trialing", s.answered(waiting).text("plan", "status"))
	})
	t.Run("order", func(t *testing.T) {
		t.Parallel()
		s, sent := counted(t, "OrdersEnded")
		c := s.customer()
		id := c.order()
		s.exec(`insert into consumers (name, kind) values ('payments', 'external')`)
		waiting := c.waits("/v1/orders/" + id)
		sent.reaches(t, "WaitStates", 2)
		s.exec(`with ended as (update orders set status = 'paid', settled_at = now() where id = $1)
			insert into processed_events (consumer, event_id) select 'payments', checkout_event_id from orders where id = $1`, id)
		require.Equal(t, "paid", s.answered(waiting).text("status"))
	})
}

// TestWaitEndsWithoutTheEvent: when that is dead, or processed to no end, the state may still come to one, and until then the
// answer keeps its time.
func TestWaitEndsWithoutTheEvent(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]string{
		"dead": `insert into discarded_jobs (consumer, event_id, type, key, lane, pos, data, correlation_id, attempts, errors, error, state)
			select 'payments', checkout_event_id, 'x', 'x', 0, 1, '{}', 'x', 1, '[]', 'x', 'dead' from orders`,
		"processed": `insert into processed_events (consumer, event_id) select 'payments', checkout_event_id from orders`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, sent := counted(t, "")
			c := s.customer()
			id := c.order()
			s.exec(`insert into consumers (name, kind) values ('payments', 'external')`)
			s.exec(event)
			waiting := c.waits("/v1/orders/" + id)
			sent.reaches(t, "OrdersEnded", 3)
			require.Empty(t, waiting)
			s.exec(`update orders set status = 'payment_failed', failure_reason = 'card_declined', settled_at = now()`)
			require.Equal(t, "payment_failed", s.answered(waiting).text("status"))
			require.LessOrEqual(t, sent.count("OrderGet"), 3)
		})
	}
}

// TestWaitingCustomersShareTheirLooks: each reads what it waits for at the beginning and at the end.
func TestWaitingCustomersShareTheirLooks(t *testing.T) {
	t.Parallel()
	s, sent := counted(t, "")
	const n = 40
	customers := make([]*customer, n)
	for i := range customers {
		customers[i] = s.customer()
	}
	for _, a := range together(t, n, func(i int) (answer, error) {
		return s.try(t.Context(), "GET", "/v1/account", nil, "Authorization", "Bearer "+customers[i].token, "Prefer", "wait=2")
	}) {
		require.Equal(t, "setting_up", a.text("plan", "status"), a.raw)
		require.Equal(t, "wait=2", a.header.Get("Preference-Applied"))
	}
	require.Equal(t, 2*n, sent.count("UserAccount"))
	// Alone, each would take ten and five.
	require.Less(t, sent.count("WaitStates"), 2*n)
	require.Less(t, sent.count("SubscriptionsStarted"), 2*n)
}
