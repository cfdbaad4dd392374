package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/settle"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

func registerPayments(reg *outbox.Registry, deps Deps) {
	c := charging{pool: deps.Pool, provider: deps.Payments, logger: deps.Logger}
	outbox.HandleExternal(reg, Payments, c.charge, outbox.On(shop.CartCheckedOut), outbox.Timeout(outsideTimeout), outbox.MayHaveHappened(unsettled))
}

// unsettled says what may have been done for a checkout at the provider, where no answer of it is known that is an end.
func unsettled(ctx context.Context, tx pgx.Tx, eventID uuid.UUID) (string, error) {
	payment, err := queries.PaymentUnsettled(ctx, tx, eventID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", nil
	case err != nil:
		return "", err
	case payment.State == "created":
		return fmt.Sprintf("order %s may have been charged", payment.OrderID), nil
	default:
		return fmt.Sprintf("a payment of order %s may have been begun at the provider", payment.OrderID), nil
	}
}

// charging charges checkouts. Whatever an attempt learns that money depends on is committed before the next step, in
// transactions of its own, so that any later attempt, by whatever process, goes on from there:
//
//	no row ─► creating ─► created (intent's id known) ─► succeeded | declined (with the order, by settle)
//
// From the second attempt on the provider is asked what became of the first before anything is done. Only the intent
// whose id was committed first is ever confirmed, and a provider charges an intent once: so attempts that overlap
// cannot charge twice either.
type charging struct {
	pool     *pgxpool.Pool
	provider payments.Provider
	logger   *slog.Logger
}

// errMismatch says that an event and its order, or an order and its intent, disagree about what is to be charged.
// Trying again does not mend that, and charging would be wrong.
var errMismatch = errors.New("what is to be charged does not agree")

func (c charging) charge(ctx context.Context, e outbox.Received[shop.CheckedOut]) (func(context.Context, pgx.Tx) error, error) {
	payment, first, err := c.begin(ctx, e)
	if err != nil {
		return nil, err
	}
	if payment.State == "succeeded" || payment.State == "declined" {
		return nil, nil // a webhook settled it, together with the order
	}
	intent, err := c.intent(ctx, e, payment, first && e.Attempt <= 1)
	if err != nil {
		return nil, err
	}
	if intent.Amount != payment.Amount || intent.Currency != payment.Currency {
		return nil, outbox.Permanent(fmt.Errorf("%w: the intent is over %d %s and the order over %d %s",
			errMismatch, intent.Amount, intent.Currency, payment.Amount, payment.Currency))
	}
	if intent.Status == payments.StatusRequiresConfirmation {
		if intent, err = c.provider.Confirm(ctx, intent.ID); err != nil {
			return nil, fmt.Errorf("confirm the payment of order %s: %w", e.Data.OrderID, err)
		}
		failpoint.At(failpoint.PaymentConfirmAfter)
	}
	if !intent.Status.Final() {
		return nil, fmt.Errorf("the payment of order %s is still %s", e.Data.OrderID, intent.Status)
	}
	return func(ctx context.Context, tx pgx.Tx) error {
		settled, err := settle.Order(ctx, tx, e.Data.OrderID, intent)
		var contradiction *settle.ContradictionError
		if errors.As(err, &contradiction) {
			return outbox.Permanent(err)
		}
		if err == nil && !settled {
			c.logger.InfoContext(ctx, "order was settled by a webhook first", "order_id", e.Data.OrderID,
				"correlation_id", e.CorrelationID)
		}
		return err
	}, nil
}

// begin makes sure that there is a row of the payment, committed, and says whether it is new: then nothing was asked
// of the provider yet.
func (c charging) begin(ctx context.Context, e outbox.Received[shop.CheckedOut]) (payment shopdb.Payment, first bool, err error) {
	rows, err := queries.PaymentBegin(ctx, c.pool, shopdb.PaymentBeginParams{OrderID: e.Data.OrderID, IdempotencyKey: e.ID})
	if err != nil {
		return payment, false, fmt.Errorf("begin the payment of order %s: %w", e.Data.OrderID, err)
	}
	failpoint.At(failpoint.PaymentBeginAfter)
	row, err := queries.PaymentGet(ctx, c.pool, e.Data.OrderID)
	if errors.Is(err, pgx.ErrNoRows) {
		return payment, false, fmt.Errorf("%w: %s", settle.ErrNoOrder, e.Data.OrderID)
	}
	if err != nil {
		return payment, false, fmt.Errorf("read the payment of order %s: %w", e.Data.OrderID, err)
	}
	payment = row.Payment
	switch {
	case payment.IdempotencyKey != e.ID:
		return payment, false, outbox.Permanent(fmt.Errorf("%w: order %s is charged for event %s", errMismatch, e.Data.OrderID, payment.IdempotencyKey))
	case row.OrderStatus != "processing" && (payment.State == "creating" || payment.State == "created"):
		return payment, false, outbox.Permanent(fmt.Errorf("%w: order %s is %s and its payment %s", errMismatch, e.Data.OrderID, row.OrderStatus, payment.State))
	case payment.Amount != e.Data.Total.Amount || payment.Currency != e.Data.Total.Currency:
		return payment, false, outbox.Permanent(fmt.Errorf("%w: the event is over %d %s and the order over %d %s",
			errMismatch, e.Data.Total.Amount, e.Data.Total.Currency, payment.Amount, payment.Currency))
	}
	return payment, rows == 1, nil
}

// intent is the one intent of the payment: the one that is known, the one that is found, or a new one. Its id is
// committed when it is returned.
func (c charging) intent(ctx context.Context, e outbox.Received[shop.CheckedOut], payment shopdb.Payment, untried bool) (payments.Intent, error) {
	if payment.IntentID != nil {
		return c.get(ctx, e.Data.OrderID, *payment.IntentID)
	}
	intent, err := payments.Intent{}, payments.ErrNotFound
	if !untried {
		intent, err = c.provider.Find(ctx, e.ID.String())
	}
	if errors.Is(err, payments.ErrNotFound) {
		intent, err = c.provider.Create(ctx, payments.CreateParams{
			IdempotencyKey: e.ID.String(),
			Amount:         payment.Amount,
			Currency:       payment.Currency,
			Method:         e.Data.PaymentMethod,
			OrderID:        e.Data.OrderID.String(),
		})
	}
	if err != nil {
		return intent, fmt.Errorf("make the payment of order %s: %w", e.Data.OrderID, err)
	}
	if intent.ID == "" {
		return intent, nil // declined before there was an intent
	}
	failpoint.At(failpoint.PaymentIntentBefore)
	known, err := queries.PaymentSetIntent(ctx, c.pool, shopdb.PaymentSetIntentParams{OrderID: e.Data.OrderID, IntentID: intent.ID})
	if err != nil {
		return intent, fmt.Errorf("keep the intent of order %s: %w", e.Data.OrderID, err)
	}
	failpoint.At(failpoint.PaymentIntentAfter)
	if known != intent.ID {
		return c.get(ctx, e.Data.OrderID, known) // an attempt that overlaps with this one came first
	}
	return intent, nil
}

func (c charging) get(ctx context.Context, orderID uuid.UUID, intentID string) (payments.Intent, error) {
	intent, err := c.provider.Get(ctx, intentID)
	if errors.Is(err, payments.ErrNotFound) {
		// The wrong account, or the wrong mode: a new intent could charge a second time.
		return intent, fmt.Errorf("order %s has intent %s, which the provider does not know: %w", orderID, intentID, err)
	}
	if err != nil {
		// The intent may be confirmed. Where the provider is away at last, the letter has to say so all the same.
		return intent, fmt.Errorf("outcome unknown: ask for the payment of order %s: %w", orderID, err)
	}
	return intent, nil
}
