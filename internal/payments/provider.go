// Package payments charges money at a payment provider, so that a charge happens once whatever breaks in between.
//
// A charge takes two steps. Create makes an intent, which moves no money; its id is committed by the caller; only then
// Confirm moves the money, and an intent is charged at most once. After an answer that did not arrive the caller asks
// (Get, or Find when it has no id) before it does anything else:
//
//	commit "creating" ─► Create(key) ─► commit the intent's id ─► Confirm(id) ─► succeeded | declined
//	                        │ no answer                              │ no answer
//	                        ▼                                        ▼
//	                     Find(key), else Create(key) again        Get(id), and Confirm only what is unconfirmed
package payments

import (
	"context"
	"errors"
	"fmt"
)

// Provider is a payment provider as the shop needs it. A decline is an answer (StatusDeclined) and no error.
//
// Errors tell how much is known: an *UnavailableError says that nothing was done, an *UnknownError that it may have
// been done. After any other error nothing was done, and the request will not work as it is.
type Provider interface {
	// Create makes an unconfirmed intent under the idempotency key. The same key gives the same intent again; the same
	// key with other parameters is ErrKeyReused. A payment method that cannot exist is answered with a declined intent,
	// which may have no id.
	Create(ctx context.Context, p CreateParams) (Intent, error)
	// Find asks for the intent that was made under the idempotency key: ErrNotFound when there is none.
	Find(ctx context.Context, idempotencyKey string) (Intent, error)
	// Get asks for an intent by its id: ErrNotFound when there is none.
	Get(ctx context.Context, intentID string) (Intent, error)
	// Confirm charges an intent that is not yet confirmed, and otherwise answers what became of it.
	Confirm(ctx context.Context, intentID string) (Intent, error)
}

// CreateParams describe what is to be charged.
type CreateParams struct {
	// IdempotencyKey is the id of the event that asks for the charge.
	IdempotencyKey string
	// Amount is in the currency's minor unit.
	Amount int64
	// Currency is an ISO 4217 code in capitals.
	Currency string
	// Method is the provider's name of the payment method, like pm_card_visa.
	Method string
	// OrderID is kept with the intent, for people and for reconciliation.
	OrderID string
}

// Status is how far an intent has come.
type Status string

// The statuses of an intent. Only the last two are final.
const (
	StatusRequiresConfirmation Status = "requires_confirmation"
	StatusProcessing           Status = "processing"
	StatusSucceeded            Status = "succeeded"
	StatusDeclined             Status = "declined"
)

// Final reports whether the status is an end.
func (s Status) Final() bool { return s == StatusSucceeded || s == StatusDeclined }

// DeclineInvalidMethod is the decline code of a payment method that the provider does not know.
const DeclineInvalidMethod = "invalid payment method"

// Intent is a charge at the provider.
type Intent struct {
	ID          string
	Status      Status
	DeclineCode string // why, when the status is declined
	Amount      int64
	Currency    string
}

var (
	// ErrNotFound says that the provider has no such intent.
	ErrNotFound = errors.New("payments: no such intent")
	// ErrKeyReused says that the idempotency key belongs to an intent with other parameters.
	ErrKeyReused = errors.New("payments: the idempotency key was used with other parameters")
)

// UnknownError says that it is not known whether the provider did what it was asked to: ask before asking again.
type UnknownError struct {
	Op  string
	Err error
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("payments: %s: outcome unknown: %v", e.Op, e.Err)
}
func (e *UnknownError) Unwrap() error { return e.Err }

// UnavailableError says that the provider could not be asked: nothing was done.
type UnavailableError struct {
	Op  string
	Err error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("payments: %s: the provider is unavailable: %v", e.Op, e.Err)
}
func (e *UnavailableError) Unwrap() error { return e.Err }
