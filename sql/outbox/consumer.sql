-- name: ConsumerRegisterLock :exec
SELECT pg_advisory_xact_lock((tableoid::bigint - 2147483648)::integer, 1) FROM /*schema*/relay_state;

-- name: ConsumerRegisterHead :one
-- Stops the log until the registration is committed: what is relayed after the position that it starts from is read by
-- drains that know of it.
SELECT head FROM /*schema*/relay_state FOR SHARE;

-- name: ConsumerRegister :exec
INSERT INTO /*schema*/consumers (name, kind, ordered, on_dead) VALUES (@name, @kind, @ordered, @on_dead)
ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, ordered = excluded.ordered, on_dead = excluded.on_dead
 WHERE (consumers.kind, consumers.ordered, consumers.on_dead) IS DISTINCT FROM (excluded.kind, excluded.ordered, excluded.on_dead);

-- name: ConsumerRegisterCursors :exec
-- A new consumer starts from now.
INSERT INTO /*schema*/cursors (consumer, lane, pos)
SELECT @consumer, lane, s.head FROM generate_series(0, 63) AS lane, /*schema*/relay_state s
ON CONFLICT DO NOTHING;

-- name: ConsumerSubscribe :exec
INSERT INTO /*schema*/consumer_subscriptions (consumer, pattern, from_pos)
SELECT @consumer, @pattern, s.head FROM /*schema*/relay_state s
ON CONFLICT DO NOTHING;

-- name: ConsumerPatterns :many
SELECT consumer, pattern FROM /*schema*/consumer_subscriptions ORDER BY consumer, pattern;

-- name: ConsumerList :many
SELECT c.name, c.kind, c.ordered, c.on_dead, c.paused_at, c.created_at,
       ARRAY(SELECT s.pattern FROM /*schema*/consumer_subscriptions s WHERE s.consumer = c.name ORDER BY s.pattern)::text[] AS patterns
  FROM /*schema*/consumers c ORDER BY c.name;

-- name: ConsumerLag :one
-- What is ahead of the cursors and wanted, and how old the oldest of it is.
SELECT count(*) AS events, coalesce(extract(epoch FROM clock_timestamp() - min(e.occurred_at)), 0)::double precision AS oldest_seconds
  FROM /*schema*/cursors c
  JOIN /*schema*/events e ON e.lane = c.lane AND e.pos > c.pos
 WHERE c.consumer = @consumer
   AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                WHERE s.consumer = c.consumer AND e.pos > s.from_pos AND e.type LIKE s.like_pattern);

-- name: ConsumerHolds :one
SELECT count(*) FILTER (WHERE settled_at IS NULL AND dead_at IS NULL) AS in_flight,
       count(DISTINCT key) FILTER (WHERE reason <> 'external' OR dead_at IS NOT NULL) AS held_keys,
       count(*) FILTER (WHERE dead_at IS NOT NULL AND settled_at IS NULL) AS dead,
       (SELECT count(*) FROM /*schema*/waiting w WHERE w.consumer = @consumer) AS waiting
  FROM /*schema*/holds WHERE consumer = @consumer;

-- name: ConsumerPaused :one
SELECT EXISTS (SELECT FROM /*schema*/consumers WHERE name = @name AND paused_at IS NOT NULL);

-- name: ConsumerPause :one
UPDATE /*schema*/consumers SET paused_at = coalesce(paused_at, clock_timestamp()) WHERE name = @name RETURNING name;

-- name: ConsumerResume :one
UPDATE /*schema*/consumers SET paused_at = NULL WHERE name = @name RETURNING name;
