// Package settle ends orders: it turns a provider's final answer into the order's state, the payment's state and the
// event that says so, in one transaction of its caller. The payments consumer and the provider's webhook both come
// with answers, at any time and in any order; an order ends once.
package settle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// Statuses of an order.
const (
	statusPaid   = "paid"
	statusFailed = "payment_failed"
)

// source names this producer in the log.
const source = "payments"

var queries = shopdb.New()

// ContradictionError says that the provider's answer does not fit how the order ended, or what was to be charged.
// Nothing was changed; somebody has to look.
type ContradictionError struct {
	OrderID uuid.UUID
	Reason  string
}

func (e *ContradictionError) Error() string {
	return fmt.Sprintf("settle: order %s: %s", e.OrderID, e.Reason)
}

// ErrNoOrder says that there is no such order.
var ErrNoOrder = errors.New("settle: no such order")

// Order ends the order with the intent's final status and appends order.paid or order.payment_failed, all as part of
// tx. It returns false, and changes nothing, when the order had ended that way already. The event's correlation and
// causation ids are those of ctx.
func Order(ctx context.Context, tx pgx.Tx, orderID uuid.UUID, intent payments.Intent) (settled bool, err error) {
	return order(ctx, tx, orderID, intent, uuid.Nil)
}

func order(ctx context.Context, tx pgx.Tx, orderID uuid.UUID, intent payments.Intent, causation uuid.UUID) (settled bool, err error) {
	status, state, eventType := statusPaid, "succeeded", shop.OrderPaid
	var reason *string
	switch intent.Status {
	case payments.StatusSucceeded:
	case payments.StatusDeclined:
		status, state, eventType, reason = statusFailed, "declined", shop.OrderPaymentFailed, &intent.DeclineCode
	default:
		return false, fmt.Errorf("settle: order %s: a payment that is %s is no end", orderID, intent.Status)
	}

	// The order's row is the lock: whoever comes second waits here and finds it ended.
	ended, err := queries.PaymentSettleOrder(ctx, tx, shopdb.PaymentSettleOrderParams{
		OrderID: orderID, Status: status, FailureReason: reason,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, checkEnd(ctx, tx, orderID, status)
	}
	if err != nil {
		return false, fmt.Errorf("settle: end order %s: %w", orderID, err)
	}
	if intent.Amount != ended.Amount || intent.Currency != ended.Currency {
		return false, &ContradictionError{orderID, fmt.Sprintf("the intent is over %d %s and the order over %d %s",
			intent.Amount, intent.Currency, ended.Amount, ended.Currency)}
	}
	rows, err := queries.PaymentSettle(ctx, tx, shopdb.PaymentSettleParams{OrderID: orderID, State: state, Reason: reason})
	if err != nil {
		return false, fmt.Errorf("settle: end the payment of order %s: %w", orderID, err)
	}
	if rows != 1 {
		return false, &ContradictionError{orderID, "it has no payment that could end"}
	}

	data := shop.OrderSettled{
		OrderID: orderID, UserID: ended.UserID, Amount: shop.Money{Amount: ended.Amount, Currency: ended.Currency},
	}
	if err := json.Unmarshal(ended.Lines, &data.Lines); err != nil {
		return false, fmt.Errorf("settle: lines of order %s: %w", orderID, err)
	}
	if status == statusPaid {
		data.Reference = intent.ID
	} else {
		data.Reason = intent.DeclineCode
	}
	if _, err := outbox.Append(ctx, tx, outbox.Event{
		Type: eventType, Key: orderID.String(), Data: data, CausationID: causation, Source: source,
	}); err != nil {
		return false, fmt.Errorf("settle: append %s: %w", eventType, err)
	}
	return true, nil
}

// checkEnd tells an order that ended as the answer says from one that did not.
func checkEnd(ctx context.Context, tx pgx.Tx, orderID uuid.UUID, want string) error {
	got, err := queries.PaymentOrderStatus(ctx, tx, orderID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: %s", ErrNoOrder, orderID)
	case err != nil:
		return fmt.Errorf("settle: read order %s: %w", orderID, err)
	case got != want:
		return &ContradictionError{orderID, fmt.Sprintf("it is %s, and the provider says it should be %s", got, want)}
	}
	return nil
}
