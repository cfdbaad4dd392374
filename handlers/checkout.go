package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

type checkoutRequest struct {
	PaymentMethod string `json:"payment_method"`
}

type checkoutAnswer struct {
	OrderID       uuid.UUID `json:"order_id"`
	Status        string    `json:"status"`
	EventID       uuid.UUID `json:"event_id"`
	CorrelationID string    `json:"correlation_id"`
}

// checkOut makes an order of a cart and reserves its stock. It does not charge: the event does that, later.
func (a *api) checkOut(c echo.Context, user uuid.UUID) error {
	cartID, err := pathID(c.Param("cart_id"), "cart")
	if err != nil {
		return err
	}
	var in checkoutRequest
	body, err := decodeBody(c, &in)
	if err != nil {
		return err
	}
	var v collector
	v.paymentMethod("/payment_method", in.PaymentMethod)
	if err := v.problem(); err != nil {
		return err
	}
	return a.write(c, write{
		caller: user.String(), resource: cartID.String(), body: body,
		work: func(ctx context.Context, tx pgx.Tx) (int, any, error) {
			out, err := a.sell(ctx, tx, cartID, user, in.PaymentMethod)
			return http.StatusAccepted, out, err
		},
	})
}

func (a *api) sell(ctx context.Context, tx pgx.Tx, cartID, user uuid.UUID, paymentMethod string) (checkoutAnswer, error) {
	if err := a.lockCart(ctx, tx, cartID, user); err != nil {
		return checkoutAnswer{}, err
	}
	items, err := a.queries.CartItems(ctx, tx, cartID)
	if err != nil {
		return checkoutAnswer{}, fmt.Errorf("read the cart's items: %w", err)
	}
	if len(items) == 0 {
		return checkoutAnswer{}, &problem{
			status: http.StatusUnprocessableEntity, slug: "cart-empty", title: "The cart is empty",
			detail: "there is nothing to check out", more: map[string]any{"cart_id": cartID},
		}
	}
	version, err := a.queries.CartCheckOut(ctx, tx, cartID)
	if err != nil {
		return checkoutAnswer{}, fmt.Errorf("check the cart out: %w", err)
	}
	// From here on the products' rows are held, and every other buyer of them waits.
	lines, err := reserve(ctx, tx, items)
	if err != nil {
		return checkoutAnswer{}, err
	}
	total, err := sum(lines)
	if errors.Is(err, errCurrencies) {
		return checkoutAnswer{}, &problem{
			status: http.StatusUnprocessableEntity, slug: "mixed-currencies", title: "The cart cannot be paid in one currency",
			detail: "the products in the cart have prices in different currencies",
		}
	}
	if err != nil {
		return checkoutAnswer{}, err
	}
	encoded, err := json.Marshal(lines)
	if err != nil {
		return checkoutAnswer{}, fmt.Errorf("encode the order's lines: %w", err)
	}
	orderID := newID()
	eventID, err := outbox.Append(ctx, tx, outbox.Event{
		Type: shop.CartCheckedOut, Key: cartID.String(),
		Data: shop.CheckedOut{
			CartID: cartID, UserID: user, CartVersion: int(version), OrderID: orderID,
			Lines: lines, Total: total, PaymentMethod: paymentMethod,
		},
	})
	if err != nil {
		return checkoutAnswer{}, err
	}
	err = a.queries.OrderCreate(ctx, outbox.Later(tx), shopdb.OrderCreateParams{
		ID: orderID, CartID: cartID, UserID: user, Amount: total.Amount, Currency: total.Currency, Lines: encoded,
		PaymentMethod: paymentMethod, CheckoutEventID: eventID,
	})
	if err != nil {
		return checkoutAnswer{}, fmt.Errorf("create the order: %w", err)
	}
	return checkoutAnswer{orderID, orderProcessing, eventID, outbox.CorrelationID(ctx)}, nil
}

// reserve takes the stock of every line at the price of this moment, in one round trip. The items are in the order of
// their skus: two checkouts of the same products wait for each other, and do not deadlock.
func reserve(ctx context.Context, tx pgx.Tx, items []shopdb.CartItemsRow) ([]shop.Line, error) {
	batch := &pgx.Batch{}
	lines := make([]shop.Line, len(items))
	var missing []string
	for i, item := range items {
		lines[i] = shop.Line{SKU: item.Sku, Quantity: int(item.Quantity)}
		batch.Queue(shopdb.ProductReserve, item.Quantity, item.Sku).QueryRow(func(row pgx.Row) error {
			err := row.Scan(&lines[i].Name, &lines[i].UnitPrice.Amount, &lines[i].UnitPrice.Currency)
			if errors.Is(err, pgx.ErrNoRows) {
				missing = append(missing, item.Sku)
				return nil
			}
			return err
		})
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("reserve stock: %w", err)
	}
	if len(missing) == 0 {
		return lines, nil
	}
	p := conflictProblem("out-of-stock", "there is not enough of every product in the cart")
	p.more = map[string]any{"skus": missing}
	for _, sku := range missing {
		p.errs = append(p.errs, fieldError{pointer("/items", sku), "is out of stock in this quantity"})
	}
	return nil, p
}

var errCurrencies = errors.New("the lines' currencies differ")

// sum is the lines' total.
func sum(lines []shop.Line) (shop.Money, error) {
	if len(lines) == 0 {
		return money(0, emptyCurrency), nil
	}
	total := money(0, lines[0].UnitPrice.Currency)
	for _, line := range lines {
		price := line.UnitPrice
		if price.Currency != total.Currency {
			return shop.Money{}, errCurrencies
		}
		if price.Amount > (math.MaxInt64-total.Amount)/int64(line.Quantity) {
			return shop.Money{}, fmt.Errorf("the total of %d lines is more than a number holds", len(lines))
		}
		total.Amount += price.Amount * int64(line.Quantity)
	}
	return total, nil
}
