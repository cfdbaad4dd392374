-- name: EventGet :one
SELECT pos, id, type, key, lane, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at, relayed_at
  FROM /*schema*/events WHERE id = @id ORDER BY pos LIMIT 1;

-- name: OutboxGet :one
SELECT seq, id, type, key, lane, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at
  FROM /*schema*/outbox WHERE id = @id ORDER BY seq LIMIT 1;

-- name: ScheduledGet :one
SELECT id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, scheduled_at, not_before
  FROM /*schema*/scheduled WHERE id = @id;

-- name: ScheduledByCorrelation :many
SELECT id, type, key, correlation_id, causation_id, source, schema_version, scheduled_at, not_before
  FROM /*schema*/scheduled WHERE correlation_id = @correlation_id ORDER BY not_before, id LIMIT @most;

-- name: EventsByCorrelation :many
SELECT pos, id, type, key, lane, correlation_id, causation_id, source, schema_version, occurred_at, relayed_at
  FROM /*schema*/events WHERE correlation_id = @correlation_id ORDER BY pos LIMIT @most;

-- name: OutboxByCorrelation :many
SELECT seq, id, type, key, lane, correlation_id, causation_id, source, schema_version, occurred_at
  FROM /*schema*/outbox WHERE correlation_id = @correlation_id ORDER BY seq LIMIT @most;

-- name: EventStates :many
-- Where an event is for each consumer that subscribes to it.
SELECT c.name AS consumer, c.kind, p.processed_at, k.pos AS cursor_pos,
       h.reason, h.attempts, h.since, h.dead_at, h.settled_at, h.outcome,
       w.since AS waiting_since, b.event_id AS behind,
       d.id AS letter_id, d.state AS letter_state, coalesce(d.skipped, false)::boolean AS skipped
  FROM /*schema*/consumers c
  JOIN /*schema*/cursors k ON k.consumer = c.name AND k.lane = @lane
  LEFT JOIN LATERAL (SELECT /*schema*/outbox_run(c.name, @lane, @pos) AS run) AS r ON true
  LEFT JOIN /*schema*/processed_events p ON p.consumer = coalesce(c.dedupe, c.name) || coalesce('@' || r.run, '') AND p.event_id = @event_id
  LEFT JOIN /*schema*/holds h ON h.consumer = c.name AND h.event_id = @event_id
  LEFT JOIN /*schema*/waiting w ON w.consumer = c.name AND w.key = @key AND w.pos = @pos
  LEFT JOIN /*schema*/holds b ON b.consumer = w.consumer AND b.key = w.key
  LEFT JOIN /*schema*/discarded_jobs d ON d.consumer = c.name AND d.event_id = @event_id
 WHERE EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                WHERE s.consumer = c.name AND (@pos > s.from_pos OR r.run IS NOT NULL) AND @type::text LIKE s.like_pattern)
 ORDER BY c.name;

-- name: DeliveryLogByEvent :many
SELECT consumer, attempt, outcome, error, at, build FROM /*schema*/delivery_log WHERE event_id = @event_id ORDER BY id;
