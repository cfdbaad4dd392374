package consumers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// registerInventory gives inventory one worker a process: stock moves one transaction at a time anyway.
func registerInventory(reg *outbox.Registry) {
	outbox.Handle(reg, Inventory, func(ctx context.Context, _ pgx.Tx, e outbox.Received[shop.OrderSettled]) error {
		return moveStock(outbox.Batch(ctx), e)
	}, outbox.On("order.*"), outbox.Concurrency(1))
}

// moveStock turns an order's reservation into a sale, or gives it back, once: the order's stock_state guards it, and
// what does not fit is an error. Other events of an order move nothing.
func moveStock(batch *pgx.Batch, e outbox.Received[shop.OrderSettled]) error {
	var state, status, move string
	switch e.Type {
	case shop.OrderPaid:
		state, status, move = "sold", "paid", shopdb.StockSell
	case shop.OrderPaymentFailed:
		state, status, move = "returned", "payment_failed", shopdb.StockReturn
	default:
		return nil
	}
	quantities := map[string]int{}
	for _, l := range e.Data.Lines {
		if l.Quantity <= 0 {
			return fmt.Errorf("order %s: a line of %s has quantity %d", e.Data.OrderID, l.SKU, l.Quantity)
		}
		quantities[l.SKU] += l.Quantity
	}
	if len(quantities) == 0 {
		return errors.New("the event names no lines")
	}

	batch.Queue(shopdb.StockLock)
	batch.Queue(shopdb.StockYield)
	batch.Queue(shopdb.StockOrderSettle, state, e.Data.OrderID, status).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != 1 {
			return fmt.Errorf("order %s holds no reservation that could become %s", e.Data.OrderID, state)
		}
		return nil
	})
	for _, sku := range slices.Sorted(maps.Keys(quantities)) {
		batch.Queue(move, quantities[sku], sku).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() != 1 {
				return fmt.Errorf("order %s: there is no product %s", e.Data.OrderID, sku)
			}
			return nil
		})
	}
	return nil
}
