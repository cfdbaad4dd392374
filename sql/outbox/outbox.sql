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

-- name: OutboxInsertBlocking :exec
-- One that is not due but has its place already.
INSERT INTO /*schema*/outbox (id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at, not_before)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: ScheduledInsert :exec
INSERT INTO /*schema*/scheduled (id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, scheduled_at, not_before)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: ScheduledCancel :many
DELETE FROM /*schema*/scheduled WHERE id = ANY (@ids::uuid[]) RETURNING id;

-- name: ScheduledDue :many
-- Takes the locks of the keys of what is due, where that needs no waiting: a producer in a long transaction must not keep the
-- relay from its work. A statement of its own, before the numbers are drawn.
SELECT due.id FROM (SELECT s.id, s.key FROM /*schema*/scheduled s
                     WHERE s.not_before <= clock_timestamp() ORDER BY s.not_before, s.id LIMIT @most) AS due
 WHERE pg_try_advisory_xact_lock(hashtextextended(due.key, 0));

-- name: ScheduledRelease :execrows
-- What is due happens when it is due, and not when it was scheduled.
WITH due AS (
    DELETE FROM /*schema*/scheduled WHERE id = ANY (@ids::uuid[]) RETURNING *
)
INSERT INTO /*schema*/outbox (id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at)
SELECT d.id, d.type, d.key, d.data, d.correlation_id, d.causation_id, d.traceparent, d.source, d.schema_version, d.not_before
  FROM due d ORDER BY d.not_before, d.id;
