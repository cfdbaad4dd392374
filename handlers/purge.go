package handlers

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/shopdb"
)

const (
	purgeBatch   = 1000
	purgeBatches = 100 // the rest is for the next call
	purgeTimeout = 10 * time.Second
)

// Purge removes what has expired: PurgeIdempotencyKeys, PurgeSessions and PurgeRateLimits.
func Purge(ctx context.Context, pool *pgxpool.Pool) (int64, error) {
	keys, err := PurgeIdempotencyKeys(ctx, pool)
	if err != nil {
		return keys, err
	}
	sessions, err := PurgeSessions(ctx, pool)
	if err != nil {
		return keys + sessions, err
	}
	limits, err := PurgeRateLimits(ctx, pool)
	return keys + sessions + limits, err
}

// PurgeIdempotencyKeys removes the answers that are older than 24 hours, in small batches, and says how many. Nothing
// depends on it: an answer that old is not given any more. Processes may do it at the same time.
func PurgeIdempotencyKeys(ctx context.Context, pool *pgxpool.Pool) (int64, error) {
	return purge(ctx, pool, "idempotency keys", shopdb.New().IdempotencyPurge)
}

// PurgeSessions removes the sessions that have expired, like PurgeIdempotencyKeys; they let nobody in any more.
func PurgeSessions(ctx context.Context, pool *pgxpool.Pool) (int64, error) {
	return purge(ctx, pool, "sessions", shopdb.New().SessionPurge)
}

// PurgeRateLimits removes the counts of addresses and accounts that have all of their limits again, like PurgeIdempotencyKeys.
func PurgeRateLimits(ctx context.Context, pool *pgxpool.Pool) (int64, error) {
	return purge(ctx, pool, "rate limits", shopdb.New().RateLimitPurge)
}

func purge(ctx context.Context, pool *pgxpool.Pool, what string, batch func(context.Context, shopdb.DBTX, int32) (int64, error)) (int64, error) {
	var total int64
	for range purgeBatches {
		once, cancel := context.WithTimeout(ctx, purgeTimeout)
		n, err := batch(once, pool, purgeBatch)
		cancel()
		if err != nil {
			return total, fmt.Errorf("purge %s: %w", what, err)
		}
		total += n
		if n < purgeBatch {
			break
		}
	}
	return total, nil
}
