package consumers

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/mail"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

var quiet = slog.New(slog.DiscardHandler)

// world is a database with one user, and what tests do to it.
type world struct {
	testing.TB
	pool *pgxpool.Pool
	user uuid.UUID
}

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{TB: t, pool: testdb.Pool(t), user: uuid.Must(uuid.NewV7())}
	w.exec(`INSERT INTO users (id, email, name, password_hash, signup_event_id) VALUES ($1, 'canary@example.com', '<b>Ada</b>', 'x', $1)`, w.user)
	return w
}

func (w world) exec(sql string, args ...any) {
	w.Helper()
	if _, err := w.pool.Exec(w.Context(), sql, args...); err != nil {
		w.Fatal(err)
	}
}

// one scans the only row of a query.
func one[T any](w world, sql string, args ...any) T {
	w.Helper()
	var v T
	if err := w.pool.QueryRow(w.Context(), sql, args...).Scan(&v); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
	return v
}

// tx runs what a handler queues in one transaction, as the engine does, and commits it when all of it succeeded.
func (w world) tx(queue ...func(*pgx.Batch) error) error {
	return pgx.BeginFunc(w.Context(), w.pool, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		for _, q := range queue {
			if err := q(batch); err != nil {
				return err
			}
		}
		return tx.SendBatch(w.Context(), batch).Close()
	})
}

// record runs what an external handler returned.
func (w world) record(fn func(context.Context, pgx.Tx) error) error {
	if fn == nil {
		return nil
	}
	return pgx.BeginFunc(w.Context(), w.pool, func(tx pgx.Tx) error { return fn(w.Context(), tx) })
}

// checkedOut makes an order of two moka pots and its reservation, and the event that says so.
func (w world) checkedOut(method string) outbox.Received[shop.CheckedOut] {
	w.Helper()
	order := uuid.Must(uuid.NewV7())
	e := event(shop.CartCheckedOut, shop.CheckedOut{
		CartID: order, UserID: w.user, CartVersion: 2, OrderID: order, Total: shop.Money{Amount: 6900, Currency: "EUR"}, PaymentMethod: method,
		Lines: []shop.Line{{SKU: "moka-pot", Name: "Moka pot", Quantity: 2, UnitPrice: shop.Money{Amount: 3450, Currency: "EUR"}}},
	})
	lines, err := json.Marshal(e.Data.Lines)
	if err != nil {
		w.Fatal(err)
	}
	w.exec(`INSERT INTO carts (id, user_id, state) VALUES ($1, $2, 'checked_out')`, order, w.user)
	w.exec(`INSERT INTO orders (id, cart_id, user_id, amount, currency, lines, payment_method, checkout_event_id)
		VALUES ($1, $1, $2, 6900, 'EUR', $3, $4, $5)`, order, w.user, lines, method, e.ID)
	w.exec(`UPDATE products SET stock = stock + 2, reserved = reserved + 2 WHERE sku = 'moka-pot'`)
	return e
}

func event[T any](eventType string, data T) outbox.Received[T] {
	return outbox.Received[T]{ID: uuid.Must(uuid.NewV7()), Type: eventType, Data: data, CorrelationID: "corr-1", Attempt: 1}
}

// postbox is a Mailer that keeps what it is given, or refuses it.
type postbox struct {
	mu    sync.Mutex
	mails []mail.Message
	err   error
}

func (p *postbox) Send(_ context.Context, m mail.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.mails = append(p.mails, m)
	return nil
}

func (p *postbox) MessageID(eventID uuid.UUID, kind string) string {
	return eventID.String() + "." + kind + "@example.com"
}
