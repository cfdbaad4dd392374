package settle_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/settle"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// order is a checkout whose intent is made and committed.
type order struct {
	id, user, checkout uuid.UUID
	intent             payments.Intent
}

func newOrder(t *testing.T, pool *pgxpool.Pool) order {
	t.Helper()
	o := order{id: uuid.Must(uuid.NewV7()), user: uuid.Must(uuid.NewV7()), checkout: uuid.Must(uuid.NewV7())}
	o.intent = payments.Intent{ID: "pi_" + o.id.String(), Status: payments.StatusSucceeded, Amount: 2598, Currency: "EUR"}
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO users (id, email, name, password_hash, signup_event_id) VALUES ($1, $2, 'Ada', 'x', $1)`, o.user, o.user.String()+"@example.com")
	batch.Queue(`INSERT INTO carts (id, user_id, state) VALUES ($1, $2, 'checked_out')`, o.id, o.user)
	batch.Queue(`INSERT INTO orders (id, cart_id, user_id, amount, currency, lines, payment_method, checkout_event_id)
		VALUES ($1, $1, $2, 2598, 'EUR', '[{"sku":"filter-beans","name":"Filter beans","quantity":2,"unit_price":{"amount":1299,"currency":"EUR"}}]', 'pm_card_visa', $3)`, o.id, o.user, o.checkout)
	batch.Queue(`INSERT INTO payments (order_id, idempotency_key, intent_id, state, amount, currency) VALUES ($1, $2, $3, 'created', 2598, 'EUR')`, o.id, o.checkout, o.intent.ID)
	batch.Queue(`INSERT INTO events (pos, seq, id, type, key, lane, data, correlation_id, source, schema_version, occurred_at)
		SELECT coalesce(max(pos), 0) + 1, 1, $1, 'cart.checked_out', $2, 0, '{}', 'corr-checkout', '', 1, now() FROM events`, o.checkout, o.id.String())
	if err := pool.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Fatal(err)
	}
	return o
}

// appended is what the outbox holds of the order.
type appended struct {
	Type        string
	Data        shop.OrderSettled
	Correlation string
	Causation   *uuid.UUID
}

func eventsOf(t *testing.T, pool *pgxpool.Pool, o order) []appended {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT type, data, correlation_id, causation_id FROM outbox WHERE key = $1 ORDER BY seq`, o.id.String())
	if err != nil {
		t.Fatal(err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (a appended, err error) {
		var data []byte
		if err := row.Scan(&a.Type, &data, &a.Correlation, &a.Causation); err != nil {
			return a, err
		}
		return a, json.Unmarshal(data, &a.Data)
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func states(t *testing.T, pool *pgxpool.Pool, o order) (orderStatus, paymentState string, reason *string) {
	t.Helper()
	err := pool.QueryRow(t.Context(), `SELECT o.status, p.state, o.failure_reason FROM orders o JOIN payments p ON p.order_id = o.id WHERE o.id = $1`, o.id).
		Scan(&orderStatus, &paymentState, &reason)
	if err != nil {
		t.Fatal(err)
	}
	return orderStatus, paymentState, reason
}

func settleOrder(ctx context.Context, pool *pgxpool.Pool, id uuid.UUID, intent payments.Intent) (settled bool, err error) {
	err = outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		settled, err = settle.Order(ctx, tx, id, intent)
		return err
	})
	return settled, err
}

func TestOrderPaid(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	o := newOrder(t, pool)
	ctx := outbox.WithCorrelationID(t.Context(), "corr-1")
	if settled, err := settleOrder(ctx, pool, o.id, o.intent); !settled || err != nil {
		t.Fatalf("%v, %v", settled, err)
	}
	if settled, err := settleOrder(ctx, pool, o.id, o.intent); settled || err != nil {
		t.Errorf("again: %v, %v", settled, err)
	}
	events := eventsOf(t, pool, o)
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	if e.Type != shop.OrderPaid || e.Correlation != "corr-1" || e.Data.OrderID != o.id || e.Data.UserID != o.user || e.Data.Reference != o.intent.ID ||
		e.Data.Reason != "" || e.Data.Amount != (shop.Money{Amount: 2598, Currency: "EUR"}) || len(e.Data.Lines) != 1 || e.Data.Lines[0].Quantity != 2 {
		t.Errorf("%+v", e)
	}
	if status, state, _ := states(t, pool, o); status != "paid" || state != "succeeded" {
		t.Errorf("order %s, payment %s", status, state)
	}
	declined := o.intent
	declined.Status, declined.DeclineCode = payments.StatusDeclined, "card_declined"
	var contradiction *settle.ContradictionError
	if _, err := settleOrder(ctx, pool, o.id, declined); !errors.As(err, &contradiction) {
		t.Errorf("a paid order that is declined later: %v", err)
	}
}

func TestOrderDeclined(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	o := newOrder(t, pool)
	o.intent.Status, o.intent.DeclineCode = payments.StatusDeclined, "insufficient_funds"
	if settled, err := settleOrder(t.Context(), pool, o.id, o.intent); !settled || err != nil {
		t.Fatalf("%v, %v", settled, err)
	}
	if status, state, reason := states(t, pool, o); status != "payment_failed" || state != "declined" || reason == nil || *reason != "insufficient_funds" {
		t.Errorf("order %s, payment %s, reason %v", status, state, reason)
	}
	if events := eventsOf(t, pool, o); len(events) != 1 || events[0].Type != shop.OrderPaymentFailed || events[0].Data.Reason != "insufficient_funds" || events[0].Data.Reference != "" {
		t.Errorf("%+v", events)
	}
}

func TestOrderChangesNothingWhenItDoesNotFit(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	o := newOrder(t, pool)
	for name, change := range map[string]func(*payments.Intent){
		"another amount":   func(i *payments.Intent) { i.Amount-- },
		"another currency": func(i *payments.Intent) { i.Currency = "USD" },
		"no end":           func(i *payments.Intent) { i.Status = payments.StatusProcessing },
	} {
		intent := o.intent
		change(&intent)
		if settled, err := settleOrder(t.Context(), pool, o.id, intent); settled || err == nil {
			t.Errorf("%s: %v, %v", name, settled, err)
		}
	}
	if _, err := settleOrder(t.Context(), pool, uuid.New(), o.intent); !errors.Is(err, settle.ErrNoOrder) {
		t.Errorf("no order: %v", err)
	}
	if status, state, _ := states(t, pool, o); status != "processing" || state != "created" || len(eventsOf(t, pool, o)) != 0 {
		t.Errorf("order %s, payment %s", status, state)
	}
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	ctx := outbox.WithCorrelationID(t.Context(), "corr-of-the-webhook")
	pool := testdb.Pool(t)
	o := newOrder(t, pool)
	event := payments.WebhookEvent{ID: "evt_1", Type: "payment_intent.succeeded", IntentID: o.intent.ID, Intent: o.intent}
	for _, want := range []settle.Outcome{settle.Settled, settle.Duplicate} {
		if got, err := settle.Webhook(ctx, pool, event); got != want || err != nil {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
	event.ID = "evt_2"
	if got, err := settle.Webhook(ctx, pool, event); got != settle.AlreadySettled || err != nil {
		t.Errorf("another event of the same: %s, %v", got, err)
	}
	// It follows from the checkout, whoever tells it.
	if events := eventsOf(t, pool, o); len(events) != 1 || events[0].Correlation != "corr-checkout" || events[0].Causation == nil || *events[0].Causation != o.checkout {
		t.Errorf("%+v", events)
	}
	var processed int
	if err := pool.QueryRow(ctx, `SELECT count(*) FROM processed_events WHERE consumer = $1 AND event_id = ANY ($2)`, settle.WebhookConsumer,
		[]uuid.UUID{settle.WebhookEventID("evt_1"), settle.WebhookEventID("evt_2")}).Scan(&processed); err != nil || processed != 2 {
		t.Errorf("%d processed, %v", processed, err)
	}
}

func TestWebhookOfNothingOfOurs(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	o := newOrder(t, pool)
	foreign, unfinished := o.intent, o.intent
	foreign.ID, unfinished.Status = "pi_foreign", payments.StatusProcessing
	for name, event := range map[string]payments.WebhookEvent{
		"foreign intent": {ID: "evt_1", Type: "payment_intent.succeeded", IntentID: foreign.ID, Intent: foreign},
		"no end":         {ID: "evt_2", Type: "payment_intent.processing", IntentID: o.intent.ID, Intent: unfinished},
		"other object":   {ID: "evt_3", Type: "customer.created"},
	} {
		if got, err := settle.Webhook(t.Context(), pool, event); got != settle.Ignored || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	contradicting := o.intent
	contradicting.Amount = 1
	var contradiction *settle.ContradictionError
	event := payments.WebhookEvent{ID: "evt_4", Type: "payment_intent.succeeded", IntentID: o.intent.ID, Intent: contradicting}
	for range 2 { // it was rolled back, so the second time is no duplicate
		if _, err := settle.Webhook(t.Context(), pool, event); !errors.As(err, &contradiction) {
			t.Errorf("another amount: %v", err)
		}
	}
}

// The consumer's answer and several deliveries of the webhook at the same moment end the order once.
func TestSettlesOnceAtOnce(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	for range 20 {
		o := newOrder(t, pool)
		var mu sync.Mutex
		settled := 0
		count := func(ok bool, err error) {
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if ok {
				settled++
			}
		}
		var wg sync.WaitGroup
		for _, id := range []string{"evt_a", "evt_a", "evt_b"} {
			wg.Go(func() {
				got, err := settle.Webhook(t.Context(), pool, payments.WebhookEvent{ID: id + o.id.String(), IntentID: o.intent.ID, Intent: o.intent})
				count(got == settle.Settled, err)
			})
		}
		for range 2 {
			wg.Go(func() { count(settleOrder(t.Context(), pool, o.id, o.intent)) })
		}
		wg.Wait()
		if events := eventsOf(t, pool, o); settled != 1 || len(events) != 1 {
			t.Fatalf("settled %d times, %d events", settled, len(events))
		}
	}
}
