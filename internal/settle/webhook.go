package settle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// WebhookConsumer is the name under which the provider's events are deduplicated in processed_events.
const WebhookConsumer = "stripe-webhook"

// webhookSpace is the name space of the ids that the provider's events get with us.
var webhookSpace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://stripe.com/events"))

// WebhookEventID is the id of the provider's event in our tables, always the same for the same event.
func WebhookEventID(providerEventID string) uuid.UUID {
	return uuid.NewSHA1(webhookSpace, []byte(providerEventID))
}

// Outcome is what came of a webhook.
type Outcome string

// The outcomes of a webhook. All of them are answered with success: the provider need not send it again.
const (
	// Settled: the order ended by it.
	Settled Outcome = "settled"
	// AlreadySettled: the order had ended that way before.
	AlreadySettled Outcome = "already settled"
	// Duplicate: this event was processed before.
	Duplicate Outcome = "duplicate"
	// Ignored: it says nothing final, or nothing about a payment of ours.
	Ignored Outcome = "ignored"
)

const (
	webhookTimeouts = `SELECT set_config('lock_timeout', '3s', true), set_config('statement_timeout', '5s', true),
		set_config('idle_in_transaction_session_timeout', '10s', true)`
	webhookDedupe = `INSERT INTO processed_events (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	// The checkout is what the order's end follows from, also when it becomes known by a webhook's request.
	webhookCause = `SELECT o.checkout_event_id, coalesce(e.correlation_id, '')
		FROM orders o LEFT JOIN events e ON e.id = o.checkout_event_id WHERE o.id = $1`
)

// webhookTimeout is more than the server's limits, so that those end a statement and not this a connection.
const webhookTimeout = 10 * time.Second

// Webhook settles the order of a verified webhook, in one transaction with the note that the provider's event is
// processed, and wakes the relay. After an error nothing is changed and the provider may send it again; a
// *ContradictionError will not mend by that.
func Webhook(ctx context.Context, db outbox.Beginner, event payments.WebhookEvent) (outcome Outcome, err error) {
	if event.IntentID == "" || !event.Intent.Status.Final() {
		return Ignored, nil
	}
	ctx, cancel := context.WithTimeout(ctx, webhookTimeout)
	defer cancel()
	err = outbox.InTx(ctx, db, func(tx pgx.Tx) error {
		var err error
		outcome, err = webhook(ctx, tx, event)
		return err
	})
	if err != nil {
		return "", err
	}
	return outcome, nil
}

func webhook(ctx context.Context, tx pgx.Tx, event payments.WebhookEvent) (Outcome, error) {
	if _, err := tx.Exec(ctx, webhookTimeouts); err != nil {
		return "", fmt.Errorf("settle: webhook: %w", err)
	}
	// An intent is confirmed only after its id was committed, so a final one of ours is found.
	orderID, err := queries.PaymentByIntent(ctx, tx, event.IntentID)
	if errors.Is(err, pgx.ErrNoRows) {
		return Ignored, nil
	}
	if err != nil {
		return "", fmt.Errorf("settle: webhook: find the payment: %w", err)
	}
	tag, err := tx.Exec(ctx, webhookDedupe, WebhookConsumer, WebhookEventID(event.ID))
	if err != nil {
		return "", fmt.Errorf("settle: webhook: deduplicate: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return Duplicate, nil
	}
	var checkout uuid.UUID
	var correlation string
	if err := tx.QueryRow(ctx, webhookCause, orderID).Scan(&checkout, &correlation); err != nil {
		return "", fmt.Errorf("settle: webhook: find the checkout: %w", err)
	}
	if correlation != "" {
		ctx = outbox.WithCorrelationID(ctx, correlation)
	}
	settled, err := order(ctx, tx, orderID, event.Intent, checkout)
	switch {
	case err != nil:
		return "", err
	case settled:
		return Settled, nil
	default:
		return AlreadySettled, nil
	}
}
