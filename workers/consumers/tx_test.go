package consumers

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/outbox"
)

func TestRegister(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	Register(reg, Deps{Mail: &postbox{}, Payments: &payments.Sandbox{}, Logger: quiet})
	kinds := map[string]outbox.Kind{
		Billing: outbox.KindTx, WelcomeEmail: outbox.KindExternal, CartHistory: outbox.KindTx,
		Payments: outbox.KindExternal, Inventory: outbox.KindTx, ReceiptEmail: outbox.KindExternal,
	}
	if len(reg.Consumers()) != len(kinds) {
		t.Errorf("%d consumers", len(reg.Consumers()))
	}
	for name, kind := range kinds {
		if c := reg.Consumer(name); c == nil || c.Kind != kind || !c.Ordered {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

func TestBilling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	start := func(user uuid.UUID, plan string) error {
		return w.tx(func(b *pgx.Batch) error {
			return startTrial(b, event(shop.UserSignedUp, shop.SignedUp{UserID: user, Plan: plan}))
		})
	}
	if err := start(w.user, "basic"); err != nil {
		t.Fatal(err)
	}
	if !one[bool](w, `SELECT plan = 'basic' AND trial_ends_at - started_at BETWEEN interval '13 days 23:59' AND interval '14 days 00:01' FROM subscriptions WHERE user_id = $1`, w.user) {
		t.Error("the trial is not one of 14 days")
	}
	if err := start(w.user, "basic"); sqlState(err) != "23505" {
		t.Errorf("a double start: %v", err)
	}
	again := event(shop.UserSignedUp, shop.SignedUp{UserID: w.user, Plan: "other"})
	again.Backfill = 1
	if err := w.tx(func(b *pgx.Batch) error { return startTrial(b, again) }); err != nil {
		t.Errorf("in a backfill: %v", err)
	}
	if !one[bool](w, `SELECT plan = 'basic' FROM subscriptions WHERE user_id = $1`, w.user) {
		t.Error("a backfill changed a trial")
	}
	if err := start(uuid.New(), "basic"); sqlState(err) != "23503" || outbox.IsPermanent(err) {
		t.Errorf("nobody: %v", err)
	}
	if err := start(w.user, ""); err == nil {
		t.Error("no plan was taken")
	}
}

func TestCartHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cart := uuid.New()
	line := shop.Line{SKU: "moka-pot", Quantity: 2}
	next := func(eventType string, version int32, change func(*cartEvent)) func(*pgx.Batch) error {
		return func(b *pgx.Batch) error {
			data := cartEvent{CartID: cart, CartVersion: version}
			if change != nil {
				change(&data)
			}
			return keepHistory(b, event(eventType, data))
		}
	}
	// Those of one batch see each other.
	err := w.tx(
		next(shop.CartCreated, 1, nil),
		next(shop.CartItemAdded, 2, func(e *cartEvent) { e.Line = &line }),
		next(shop.CartCheckedOut, 3, func(e *cartEvent) { e.OrderID, e.Lines = cart, []shop.Line{line} }),
	)
	if err != nil {
		t.Fatal(err)
	}
	got := one[[]string](w, `SELECT array_agg(version || ' ' || type || ' ' || coalesce(line ->> 'sku', line #>> '{lines,0,sku}', '-') ORDER BY version) FROM cart_history WHERE cart_id = $1`, cart)
	if want := []string{"1 cart.created -", "2 cart.item_added moka-pot", "3 cart.checked_out moka-pot"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	for version, last := range map[int32]int{5: 3, 3: 3, 1: 3} {
		var gap *VersionGapError
		if err := w.tx(next(shop.CartItemAdded, version, nil)); !errors.As(err, &gap) || gap.Last != last || gap.Got != int(version) {
			t.Errorf("version %d: %v", version, err)
		}
	}
	cart = uuid.New()
	var gap *VersionGapError
	if err := w.tx(next(shop.CartItemAdded, 2, nil)); !errors.As(err, &gap) || gap.Last != 0 {
		t.Errorf("the first of a cart is missing: %v", err)
	}
}

func settledEvent(eventType string, o outbox.Received[shop.CheckedOut]) outbox.Received[shop.OrderSettled] {
	return event(eventType, shop.OrderSettled{OrderID: o.Data.OrderID, UserID: o.Data.UserID, Amount: o.Data.Total, Lines: o.Data.Lines, Reference: "pi_1"})
}

func TestInventory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stock := func() [2]int32 {
		return [2]int32{
			one[int32](w, `SELECT stock FROM products WHERE sku = 'moka-pot'`),
			one[int32](w, `SELECT reserved FROM products WHERE sku = 'moka-pot'`),
		}
	}
	paid, failed := w.checkedOut("pm_card_visa"), w.checkedOut("pm_card_visa")
	move := func(e outbox.Received[shop.OrderSettled]) error {
		return w.tx(func(b *pgx.Batch) error { return moveStock(b, e) })
	}
	if err := move(settledEvent(shop.OrderPaid, paid)); err == nil {
		t.Error("an order that is not paid yet was sold")
	}
	w.exec(`UPDATE orders SET status = 'paid' WHERE id = $1`, paid.Data.OrderID)
	w.exec(`UPDATE orders SET status = 'payment_failed' WHERE id = $1`, failed.Data.OrderID)
	if got := stock(); got != [2]int32{7, 4} {
		t.Fatalf("before: %v", got)
	}
	if err := move(settledEvent(shop.OrderPaid, paid)); err != nil || stock() != [2]int32{5, 2} {
		t.Errorf("sold: %v, %v", err, stock())
	}
	if err := move(settledEvent(shop.OrderPaymentFailed, failed)); err != nil || stock() != [2]int32{5, 0} {
		t.Errorf("returned: %v, %v", err, stock())
	}
	for _, e := range []outbox.Received[shop.OrderSettled]{
		settledEvent(shop.OrderPaid, paid), settledEvent(shop.OrderPaymentFailed, paid), settledEvent(shop.OrderPaymentFailed, failed),
	} {
		if err := move(e); err == nil {
			t.Errorf("%s a second time was silent", e.Type)
		}
	}
	if err := move(settledEvent("order.shipped", paid)); err != nil {
		t.Errorf("an event that moves nothing: %v", err)
	}
	third := w.checkedOut("pm_card_visa")
	w.exec(`UPDATE orders SET status = 'paid' WHERE id = $1`, third.Data.OrderID)
	for name, lines := range map[string][]shop.Line{
		"none": nil, "negative": {{SKU: "moka-pot", Quantity: -1}}, "unknown": {{SKU: "nothing", Quantity: 1}},
		"more than reserved": {{SKU: "moka-pot", Quantity: 2}, {SKU: "moka-pot", Quantity: 1}},
	} {
		e := settledEvent(shop.OrderPaid, third)
		e.Data.Lines = lines
		if err := move(e); err == nil {
			t.Errorf("lines %s were taken", name)
		}
	}
	if got := stock(); got != [2]int32{7, 2} {
		t.Errorf("what failed left a trace: %v", got)
	}
}

// Batches that meet the same products in opposite order do not deadlock: one waits for the other.
func TestInventoryBatchesInOppositeOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const pairs = 20
	w.exec(`UPDATE products SET reserved = 1000 WHERE sku IN ('espresso-beans', 'filter-beans')`)
	order := func(sku string) outbox.Received[shop.OrderSettled] {
		o := w.checkedOut("pm_card_visa")
		w.exec(`UPDATE orders SET status = 'paid' WHERE id = $1`, o.Data.OrderID)
		e := settledEvent(shop.OrderPaid, o)
		e.Data.Lines = []shop.Line{{SKU: sku, Quantity: 1}}
		return e
	}
	batches := [2][]func(*pgx.Batch) error{}
	for range pairs {
		for i, skus := range [2][2]string{{"espresso-beans", "filter-beans"}, {"filter-beans", "espresso-beans"}} {
			for _, sku := range skus {
				e := order(sku)
				batches[i] = append(batches[i], func(b *pgx.Batch) error { return moveStock(b, e) })
			}
		}
	}
	var wg sync.WaitGroup
	for _, queue := range batches {
		wg.Go(func() {
			for pair := range slices.Chunk(queue, 2) {
				if err := w.tx(pair...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left := one[int64](w, `SELECT sum(reserved) FROM products WHERE sku IN ('espresso-beans', 'filter-beans')`); left != 2000-4*pairs {
		t.Errorf("%d reserved", left)
	}
}

// A checkout that holds a product the batch wants, and waits for one the batch holds, is served: the batch gives way,
// with an error after which the engine runs it again.
func TestInventoryGivesWayToACheckout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.exec(`UPDATE products SET reserved = 10 WHERE sku IN ('espresso-beans', 'filter-beans')`)
	sell := func(sku string) outbox.Received[shop.OrderSettled] {
		o := w.checkedOut("pm_card_visa")
		w.exec(`UPDATE orders SET status = 'paid' WHERE id = $1`, o.Data.OrderID)
		e := settledEvent(shop.OrderPaid, o)
		e.Data.Lines = []shop.Line{{SKU: sku, Quantity: 1}}
		return e
	}
	first, second := sell("filter-beans"), sell("espresso-beans")
	send := func(tx pgx.Tx, e outbox.Received[shop.OrderSettled]) error {
		batch := &pgx.Batch{}
		if err := moveStock(batch, e); err != nil {
			return err
		}
		return tx.SendBatch(ctx, batch).Close()
	}
	const reserve = `UPDATE products SET reserved = reserved + 1 WHERE sku = $1`

	checkout, err := w.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = checkout.Rollback(context.Background()) }()
	inventory, err := w.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inventory.Rollback(context.Background()) }()
	// However long it takes until the batch waits, too, on a busy machine: it is the batch that has to give way, before anybody looks for
	// a deadlock.
	if _, err := checkout.Exec(ctx, `SET LOCAL deadlock_timeout = '1min'`); err != nil {
		t.Fatal(err)
	}
	if _, err := checkout.Exec(ctx, reserve, "espresso-beans"); err != nil {
		t.Fatal(err)
	}
	if err := send(inventory, first); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	pid := checkout.Conn().PgConn().PID()
	go func() {
		_, err := checkout.Exec(ctx, reserve, "filter-beans")
		served <- err
	}()
	for !one[bool](w, `SELECT wait_event_type IS NOT DISTINCT FROM 'Lock' FROM pg_stat_activity WHERE pid = $1`, pid) {
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
	}
	if err := send(inventory, second); sqlState(err) != "55P03" {
		t.Errorf("the batch: %v", err)
	}
	if err := inventory.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Errorf("the checkout: %v", err)
	}
}
