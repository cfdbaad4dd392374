package webhooks

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// What only tests reach.

// Deliver is what the consumers' handlers do.
func Deliver(ctx context.Context, s *Store, e outbox.Received[json.RawMessage]) (func(context.Context, pgx.Tx) error, error) {
	return s.deliver(ctx, e)
}

// Attempts and the waits between them.
const (
	MaxAttempts = maxAttempts
	RetryBase   = retryBase
	RetryMax    = retryMax
)
