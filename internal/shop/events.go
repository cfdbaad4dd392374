// Package shop names what the shop's producers (handlers) and reactions (workers/consumers) share: the types and data
// of its events, and who reacts to them where a request waits for that. Events carry ids and no personal datum.
package shop

import "github.com/google/uuid"

// The event types that ship.
const (
	UserSignedUp       = "user.signed_up"
	CartCreated        = "cart.created"
	CartItemAdded      = "cart.item_added"
	CartItemRemoved    = "cart.item_removed"
	CartCheckedOut     = "cart.checked_out"
	OrderPaid          = "order.paid"
	OrderPaymentFailed = "order.payment_failed"
)

// The consumers that a request may wait for.
const (
	Billing  = "billing"
	Payments = "payments"
)

// Money is an amount in the currency's minor unit: 1299 EUR is 12.99 €.
type Money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

// SignedUp is the data of user.signed_up, keyed by the user's id.
type SignedUp struct {
	UserID uuid.UUID `json:"user_id"`
	Plan   string    `json:"plan"`
}

// Line is a cart's or an order's line, with the price as it was at that moment.
type Line struct {
	SKU       string `json:"sku"`
	Name      string `json:"name"`
	Quantity  int    `json:"quantity"`
	UnitPrice Money  `json:"unit_price"`
}

// CartChanged is the data of cart.created (no line), cart.item_added and cart.item_removed, keyed by the cart's id.
// CartVersion counts 1, 2, 3 … per cart over all cart.* events.
type CartChanged struct {
	CartID      uuid.UUID `json:"cart_id"`
	UserID      uuid.UUID `json:"user_id"`
	CartVersion int       `json:"cart_version"`
	Line        *Line     `json:"line,omitempty"`
}

// CheckedOut is the data of cart.checked_out, keyed by the cart's id: the whole cart, so that it can be acted on alone.
type CheckedOut struct {
	CartID        uuid.UUID `json:"cart_id"`
	UserID        uuid.UUID `json:"user_id"`
	CartVersion   int       `json:"cart_version"`
	OrderID       uuid.UUID `json:"order_id"`
	Lines         []Line    `json:"lines"`
	Total         Money     `json:"total"`
	PaymentMethod string    `json:"payment_method"`
}

// OrderSettled is the data of order.paid (with the provider's reference) and order.payment_failed (with the reason),
// keyed by the order's id.
type OrderSettled struct {
	OrderID   uuid.UUID `json:"order_id"`
	UserID    uuid.UUID `json:"user_id"`
	Amount    Money     `json:"amount"`
	Lines     []Line    `json:"lines"`
	Reference string    `json:"reference,omitempty"`
	Reason    string    `json:"reason,omitempty"`
}
