package consumers

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// trialDays is how long a new user tries the plan.
const trialDays = 14

func registerBilling(reg *outbox.Registry) {
	outbox.Handle(reg, Billing, func(ctx context.Context, _ pgx.Tx, e outbox.Received[shop.SignedUp]) error {
		return startTrial(outbox.Batch(ctx), e)
	}, outbox.On(shop.UserSignedUp))
}

// startTrial writes the user's subscription. A user who does not exist (yet) is an error of the foreign key, and a
// second trial one of the primary key, but for a backfill, which makes up for the trials that are missing.
func startTrial(batch *pgx.Batch, e outbox.Received[shop.SignedUp]) error {
	if e.Data.Plan == "" {
		return errors.New("the event names no plan")
	}
	start := shopdb.SubscriptionStart
	if e.Backfill != 0 {
		start = shopdb.SubscriptionMakeUp
	}
	batch.Queue(start, e.Data.UserID, e.Data.Plan, trialDays)
	return nil
}
