-- name: EventPlaces :many
-- Where an event is. One snapshot: one that moves on at this moment is in one place or the next, and not missed in both.
SELECT 'relayed'::text AS state, 1 AS rank, e.pos AS n, e.pos AS pos, e.lane AS lane, e.id, e.type, e.key, e.data AS data, e.correlation_id,
       e.causation_id, e.source, e.schema_version, e.occurred_at AS occurred_at, e.not_before AS not_before, e.relayed_at AS relayed_at
  FROM /*schema*/events e WHERE e.id = @id
UNION ALL
SELECT 'outbox'::text AS state, 2 AS rank, o.seq AS n, 0::bigint AS pos, o.lane AS lane, o.id, o.type, o.key, o.data AS data, o.correlation_id,
       o.causation_id, o.source, o.schema_version, o.occurred_at AS occurred_at, o.not_before AS not_before, o.occurred_at AS relayed_at
  FROM /*schema*/outbox o WHERE o.id = @id
UNION ALL
SELECT 'scheduled'::text AS state, 3 AS rank, 0::bigint AS n, 0::bigint AS pos, 0::smallint AS lane, s.id, s.type, s.key, s.data AS data, s.correlation_id,
       s.causation_id, s.source, s.schema_version, s.scheduled_at AS occurred_at, s.not_before AS not_before, s.scheduled_at AS relayed_at
  FROM /*schema*/scheduled s WHERE s.id = @id
 ORDER BY rank, n LIMIT 1;

-- name: EventPlacesByCorrelation :many
-- The same for all of a correlation id, without their data: in the order of the log, then as they will come.
SELECT 'relayed'::text AS state, 1 AS rank, e.pos AS n, e.pos AS pos, e.lane AS lane, e.id, e.type, e.key, 'null'::jsonb AS data, e.correlation_id,
       e.causation_id, e.source, e.schema_version, e.occurred_at AS occurred_at, e.not_before AS not_before, e.relayed_at AS relayed_at
  FROM /*schema*/events e WHERE e.correlation_id = @correlation_id
UNION ALL
SELECT 'outbox'::text AS state, 2 AS rank, o.seq AS n, 0::bigint AS pos, o.lane AS lane, o.id, o.type, o.key, 'null'::jsonb AS data, o.correlation_id,
       o.causation_id, o.source, o.schema_version, o.occurred_at AS occurred_at, o.not_before AS not_before, o.occurred_at AS relayed_at
  FROM /*schema*/outbox o WHERE o.correlation_id = @correlation_id
UNION ALL
SELECT 'scheduled'::text AS state, 3 AS rank, 0::bigint AS n, 0::bigint AS pos, 0::smallint AS lane, s.id, s.type, s.key, 'null'::jsonb AS data, s.correlation_id,
       s.causation_id, s.source, s.schema_version, s.scheduled_at AS occurred_at, s.not_before AS not_before, s.scheduled_at AS relayed_at
  FROM /*schema*/scheduled s WHERE s.correlation_id = @correlation_id
 ORDER BY rank, n, not_before, id LIMIT @most;

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
