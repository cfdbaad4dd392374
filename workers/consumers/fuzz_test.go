package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// countedJobs stands for the job queue: it counts, and nobody works.
type countedJobs struct{ last int64 }

func (*countedJobs) WakeLanes(context.Context, pgx.Tx, []outbox.Lane) error { return nil }

func (j *countedJobs) Deliver(_ context.Context, _ pgx.Tx, d []outbox.Delivery) ([]int64, error) {
	ids := make([]int64, len(d))
	for i := range ids {
		j.last++
		ids[i] = j.last
	}
	return ids, nil
}
func (*countedJobs) SetPaused(context.Context, pgx.Tx, string, bool) error { return nil }
func (*countedJobs) StartRelay(context.Context, pgx.Tx) error              { return nil }

var shopTypes = []string{
	shop.UserSignedUp, shop.CartCreated, shop.CartItemAdded, shop.CartItemRemoved, shop.CartCheckedOut, shop.OrderPaid, shop.OrderPaymentFailed, "cart.unknown", "order.unknown",
}

// FuzzEvents: whatever a producer in SQL writes as an event of the shop, the consumers whose work is in the database either do it
// or have one held event more, and in the same batch the neighbour's is done; the others answer with an error.
func FuzzEvents(f *testing.F) {
	deep := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	for kind, seeds := range [][]string{
		{`null`, `[]`, `{"user_id":"x"}`, `{"user_id":"USER","plan":"p"}`, `{"user_id":"00000000-0000-0000-0000-000000000000","plan":"p"}`, `{"user_id":null,"plan":1e400}`, deep},
		{`{"cart_id":"{}"}`, `{"cart_version":2147483648}`, `{"cart_version":1}`},
		{`{"cart_version":1,"line":{"quantity":-1}}`, `{"cart_version":1,"line":[]}`},
		{`{"cart_version":0,"line":null}`},
		{`{"order_id":"ORDER","total":{"amount":6900,"currency":"EUR"},"payment_method":"\u2028"}`, `{"order_id":"ORDER","cart_version":1,"total":{"amount":1,"currency":"EUR"}}`, `{}`},
		{
			`{"order_id":"ORDER","lines":[{"sku":"moka-pot","quantity":2147483648}]}`, `{"lines":[{"sku":"filter-beans","quantity":9223372036854775807},{"sku":"filter-beans","quantity":9223372036854775807}]}`,
			`{"order_id":"ORDER","user_id":"USER","lines":[{"sku":"moka-pot","quantity":2,"unit_price":{"amount":-9223372036854775808,"currency":"\r\nX"}}],"amount":{"amount":-9223372036854775808}}`,
		},
		{`{"order_id":"ORDER","lines":[{"sku":"","quantity":1}]}`, `{"lines":{}}`},
		{`"x"`},
		{`1`},
	} {
		for _, data := range seeds {
			f.Add(uint8(kind), data)
		}
	}
	base := newWorld(f)
	reg := outbox.NewRegistry()
	registerBilling(reg)
	registerCartHistory(reg)
	registerInventory(reg)
	engine := outbox.NewEngine(base.pool, reg, &countedJobs{}, outbox.Config{})
	if _, err := engine.Register(f.Context()); err != nil {
		f.Fatal(err)
	}
	order := base.checkedOut("pm_card_visa")
	f.Fuzz(func(t *testing.T, kind uint8, data string) {
		w := base
		w.TB = t
		data = strings.NewReplacer("ORDER", order.Data.OrderID.String(), "USER", w.user.String()).Replace(data)
		defer w.exec(`DELETE FROM subscriptions; DELETE FROM cart_history; DELETE FROM payments; DELETE FROM emails; DELETE FROM outbox; DELETE FROM holds; DELETE FROM waiting;
			UPDATE orders SET stock_state = 'reserved', status = 'processing'; UPDATE products SET stock = 1000000, reserved = 500000`)
		neighbour, done := uuid.NewString(), `SELECT count(*) FROM cart_history WHERE cart_id = '`
		poison := one[string](w, `SELECT 'poison ' || i FROM generate_series(1, 5000) AS i WHERE hashtextextended('poison ' || i, 0) & 63 = hashtextextended($1, 0) & 63 LIMIT 1`, neighbour)
		if err := write(w, shopTypes[int(kind)%len(shopTypes)], poison, data); err != nil {
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code[:2] != "22" && refused.Code[:2] != "23" && refused.Code[:2] != "54" {
				t.Errorf("%v", err)
			}
			return
		}
		if err := write(w, shop.CartCreated, neighbour, `{"cart_id":"`+neighbour+`","cart_version":1}`); err != nil {
			t.Fatal(err)
		}
		carry(w, engine)
		if one[int](w, done+neighbour+`'`) != 1 {
			t.Error("the neighbour's event is not done")
		}
		if n := one[int](w, `SELECT count(*) FROM holds`); n > 1 || n == 1 && !one[bool](w, `SELECT key = $1 AND reason = 'failed' FROM holds`, poison) {
			t.Errorf("%d events are held", n)
		}
		outside(w, data)
	})
}

func write(w world, eventType, key, data string) error {
	_, err := w.pool.Exec(w.Context(), `SELECT outbox_append($1, $2, $3::text::jsonb)`, eventType, key, data)
	return err
}

// carry relays all that is in the outbox and drains every lane once it is behind.
func carry(w world, engine *outbox.Engine) {
	w.Helper()
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- engine.Relay(w.Context(), stop) }()
	for deadline := time.Now().Add(20 * time.Second); one[bool](w, `SELECT EXISTS (SELECT FROM outbox)`); {
		if time.Now().After(deadline) {
			w.Fatal("the outbox does not empty")
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		w.Fatal(err)
	}
	rows, err := w.pool.Query(w.Context(), `SELECT DISTINCT c.consumer, c.lane FROM cursors c JOIN events e ON e.lane = c.lane AND e.pos > c.pos`)
	if err != nil {
		w.Fatal(err)
	}
	lanes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[outbox.Lane])
	if err != nil {
		w.Fatal(err)
	}
	for _, l := range lanes {
		if _, err := engine.Drain(w.Context(), l, 0, time.Minute); err != nil {
			w.Errorf("drain %s: %v", l.Consumer, err)
		}
	}
	if one[bool](w, `SELECT EXISTS (SELECT FROM cursors c JOIN events e ON e.lane = c.lane AND e.pos > c.pos)`) {
		w.Error("a lane is behind")
	}
}

// outside hands the data to the consumers that call the outside.
func outside(w world, data string) {
	w.Helper()
	box := &postbox{}
	deps := Deps{Pool: w.pool, Mail: box, Payments: payments.NewSandbox(w.pool), Logger: quiet}
	var paid shop.OrderSettled
	if json.Unmarshal([]byte(data), &paid) == nil {
		_, _ = receiptMail(deps)(w.Context(), event(shop.OrderPaid, paid))
	}
	var signedUp shop.SignedUp
	if json.Unmarshal([]byte(data), &signedUp) == nil {
		_, _ = welcome(deps)(w.Context(), event(shop.UserSignedUp, signedUp))
	}
	for _, m := range box.mails {
		if m.To != "canary@example.com" || !utf8.ValidString(m.Text+m.HTML) || strings.Contains(m.HTML, "<script") {
			w.Errorf("%+v", m)
		}
	}
	var bought shop.CheckedOut
	if json.Unmarshal([]byte(data), &bought) != nil {
		return
	}
	c := charging{pool: w.pool, provider: deps.Payments, logger: quiet}
	if record, err := c.charge(w.Context(), event(shop.CartCheckedOut, bought)); err == nil {
		if err := w.record(record); err != nil {
			w.Errorf("charged and not recorded: %v", err)
		}
	}
}

// FuzzFormatMoney: every amount is written so that it can be read.
func FuzzFormatMoney(f *testing.F) {
	for _, amount := range []int64{0, 5, -5, 1299, 1<<63 - 1, -1 << 63} {
		for _, currency := range []string{"EUR", "JPY", "KWD", "", "\r\n"} {
			f.Add(amount, currency)
		}
	}
	f.Fuzz(func(t *testing.T, amount int64, currency string) {
		number, ok := strings.CutSuffix(formatMoney(shop.Money{Amount: amount, Currency: currency}), " "+currency)
		if !ok {
			t.Fatal("the currency is missing")
		}
		digits, given := minorDigits[currency]
		if !given {
			digits = 2
		}
		whole, fraction, _ := strings.Cut(number, ".")
		read, ok := new(big.Int).SetString(whole+fraction, 10)
		if !ok || !read.IsInt64() || read.Int64() != amount || len(fraction) != digits || strings.TrimLeft(whole, "-") == "" {
			t.Errorf("%d is written as %q", amount, number)
		}
	})
}
