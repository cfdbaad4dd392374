-- name: IdempotencyLock :one
-- A statement of its own, before anything is read: what it sees afterwards includes what the holder committed.
SELECT pg_try_advisory_xact_lock(hashtextextended(@id_hex::text, 1));

-- name: IdempotencyReplay :one
-- A kept answer is found by writing: it is given only once that is committed.
UPDATE idempotency_keys SET replays = replays + 1
 WHERE id = $1 AND created_at > clock_timestamp() - interval '24 hours'
RETURNING body_mac, status, body;

-- name: IdempotencyKeep :exec
INSERT INTO idempotency_keys (id, body_mac, status, body) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET body_mac = excluded.body_mac, status = excluded.status, body = excluded.body,
    replays = 0, created_at = clock_timestamp();

-- name: IdempotencyPurge :execrows
DELETE FROM idempotency_keys WHERE id IN (
    SELECT k.id FROM idempotency_keys k WHERE k.created_at < clock_timestamp() - interval '24 hours'
     ORDER BY k.created_at LIMIT @most::integer FOR UPDATE SKIP LOCKED);
