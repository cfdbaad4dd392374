-- name: OutboxLockKeys :exec
-- Sorted by the value that is locked, so that any two appenders take what they share in the same order.
SELECT pg_advisory_xact_lock(k.lock)
  FROM (SELECT DISTINCT hashtextextended(key, 0) AS lock FROM unnest(@keys::text[]) AS key ORDER BY 1) AS k;

-- name: OutboxInsert :exec
INSERT INTO /*schema*/outbox (id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: OutboxAppendOne :exec
-- The key's lock and the row in one statement: the number is drawn when the row is made, of what the subquery yields, and
-- that is when the lock is held. (OFFSET 0 keeps the planner from making one of the two.)
INSERT INTO /*schema*/outbox (id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
  FROM (SELECT pg_advisory_xact_lock(hashtextextended($3::text, 0)) OFFSET 0) AS locked;
