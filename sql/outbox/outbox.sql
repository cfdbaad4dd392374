-- name: OutboxLockKeys :exec
-- Sorted by the value that is locked, so that any two appenders take what they share in the same order.
SELECT pg_advisory_xact_lock(k.lock)
  FROM (SELECT DISTINCT hashtextextended(key, 0) AS lock FROM unnest(@keys::text[]) AS key ORDER BY 1) AS k;

-- name: OutboxInsert :exec
INSERT INTO /*schema*/outbox (id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);
