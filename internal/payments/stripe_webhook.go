package payments

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/stripe/stripe-go/v85"
	"github.com/stripe/stripe-go/v85/webhook"
)

// WebhookEvent is what Stripe tells of its own accord.
type WebhookEvent struct {
	// ID is Stripe's id of the event, the same at each delivery of it.
	ID string
	// Type is Stripe's name of it, like payment_intent.succeeded.
	Type string
	// IntentID is the intent it is about; empty when it is about something else.
	IntentID string
	// Intent is that intent as it was then.
	Intent Intent
}

// ErrWebhookSignature says that a webhook was not signed by Stripe with one of these secrets, or too long ago.
var ErrWebhookSignature = errors.New("payments: the webhook's signature is not valid")

// ErrWebhookBody says that a signed webhook holds no event that can be read.
var ErrWebhookBody = errors.New("payments: the webhook's body cannot be read")

// ParseWebhook verifies a webhook's signature (of the last five minutes) and reads it. While a secret is being replaced there are two, of which
// either will do. An event that is not about a PaymentIntent has no IntentID and needs nothing done.
func ParseWebhook(payload []byte, signatureHeader string, secrets ...string) (WebhookEvent, error) {
	event, err := verified(payload, signatureHeader, secrets)
	switch {
	case errors.Is(err, ErrWebhookSignature):
		return WebhookEvent{}, err
	case err != nil || event.ID == "" || event.Type == "":
		return WebhookEvent{}, ErrWebhookBody
	}
	parsed := WebhookEvent{ID: event.ID, Type: string(event.Type)}
	if !strings.HasPrefix(parsed.Type, "payment_intent.") {
		return parsed, nil
	}
	var pi stripe.PaymentIntent
	if event.Data == nil || json.Unmarshal(event.Data.Raw, &pi) != nil {
		return WebhookEvent{}, ErrWebhookBody
	}
	if parsed.Intent, err = stripeIntent("webhook", &pi); err != nil {
		return WebhookEvent{}, ErrWebhookBody
	}
	parsed.IntentID = parsed.Intent.ID
	return parsed, nil
}

// verified is the event that one of the secrets vouches for.
func verified(payload []byte, signatureHeader string, secrets []string) (event stripe.Event, err error) {
	err = ErrWebhookSignature
	for _, secret := range secrets {
		if secret == "" {
			continue // an empty secret verifies what anybody signs
		}
		event, err = webhook.ConstructEventWithOptions(payload, signatureHeader, secret, webhook.ConstructEventOptions{
			// The few fields read here are the same in every version of the API; the account's may differ from the library's.
			IgnoreAPIVersionMismatch: true,
		})
		switch {
		case errors.Is(err, webhook.ErrInvalidHeader), errors.Is(err, webhook.ErrNoValidSignature),
			errors.Is(err, webhook.ErrNotSigned), errors.Is(err, webhook.ErrTooOld):
			err = fmt.Errorf("%w: %w", ErrWebhookSignature, err)
		default:
			return event, err
		}
	}
	return event, err
}
