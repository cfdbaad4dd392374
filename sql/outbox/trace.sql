-- name: EventPlaces :many
-- Where an event is. One snapshot: one that moves on at this moment is in one place or the next, and not missed in both.
SELECT 'relayed'::text AS state, 1 AS rank, e.pos AS n, e.pos AS pos, e.lane AS lane, e.id, e.type, e.key, e.data AS data, e.correlation_id,
       e.causation_id, e.source, e.schema_version, e.occurred_at AS occurred_at, e.not_before AS not_before, e.relayed_at AS relayed_at, ''::text AS error
  FROM /*schema*/events e WHERE e.id = @id
UNION ALL
SELECT 'outbox'::text AS state, 2 AS rank, o.seq AS n, 0::bigint AS pos, o.lane AS lane, o.id, o.type, o.key, o.data AS data, o.correlation_id,
       o.causation_id, o.source, o.schema_version, o.occurred_at AS occurred_at, o.not_before AS not_before, o.occurred_at AS relayed_at, ''::text AS error
  FROM /*schema*/outbox o WHERE o.id = @id
UNION ALL
SELECT 'scheduled'::text AS state, 3 AS rank, 0::bigint AS n, 0::bigint AS pos, 0::smallint AS lane, s.id, s.type, s.key, s.data AS data, s.correlation_id,
       s.causation_id, s.source, s.schema_version, s.scheduled_at AS occurred_at, s.not_before AS not_before, s.scheduled_at AS relayed_at, ''::text AS error
  FROM /*schema*/scheduled s WHERE s.id = @id
UNION ALL
SELECT 'quarantined'::text AS state, 4 AS rank, q.seq AS n, 0::bigint AS pos, 0::smallint AS lane, q.id, q.type, q.key, q.data AS data, q.correlation_id,
       q.causation_id, q.source, q.schema_version, q.occurred_at AS occurred_at, q.not_before AS not_before, q.quarantined_at AS relayed_at, q.error AS error
  FROM /*schema*/quarantine q WHERE q.id = @id
 ORDER BY rank, n LIMIT 1;

-- name: EventPlacesByCorrelation :many
-- The same for all of a correlation id, without their data: in the order of the log, then as they will come.
SELECT 'relayed'::text AS state, 1 AS rank, e.pos AS n, e.pos AS pos, e.lane AS lane, e.id, e.type, e.key, 'null'::jsonb AS data, e.correlation_id,
       e.causation_id, e.source, e.schema_version, e.occurred_at AS occurred_at, e.not_before AS not_before, e.relayed_at AS relayed_at, ''::text AS error
  FROM /*schema*/events e WHERE e.correlation_id = @correlation_id
UNION ALL
SELECT 'outbox'::text AS state, 2 AS rank, o.seq AS n, 0::bigint AS pos, o.lane AS lane, o.id, o.type, o.key, 'null'::jsonb AS data, o.correlation_id,
       o.causation_id, o.source, o.schema_version, o.occurred_at AS occurred_at, o.not_before AS not_before, o.occurred_at AS relayed_at, ''::text AS error
  FROM /*schema*/outbox o WHERE o.correlation_id = @correlation_id
UNION ALL
SELECT 'scheduled'::text AS state, 3 AS rank, 0::bigint AS n, 0::bigint AS pos, 0::smallint AS lane, s.id, s.type, s.key, 'null'::jsonb AS data, s.correlation_id,
       s.causation_id, s.source, s.schema_version, s.scheduled_at AS occurred_at, s.not_before AS not_before, s.scheduled_at AS relayed_at, ''::text AS error
  FROM /*schema*/scheduled s WHERE s.correlation_id = @correlation_id
UNION ALL
SELECT 'quarantined'::text AS state, 4 AS rank, q.seq AS n, 0::bigint AS pos, 0::smallint AS lane, q.id, q.type, q.key, 'null'::jsonb AS data, q.correlation_id,
       q.causation_id, q.source, q.schema_version, q.occurred_at AS occurred_at, q.not_before AS not_before, q.quarantined_at AS relayed_at, q.error AS error
  FROM /*schema*/quarantine q WHERE q.correlation_id = @correlation_id
 ORDER BY rank, n, not_before, id LIMIT @most;

-- name: EventStates :many
-- Where each of the events is for each consumer that subscribes to it, or has had to do with it, and what its job, if it has one, is to do next.
SELECT a.event_id::uuid AS event_id, c.name AS consumer, c.kind, c.paused_at, p.processed_at,
       h.reason, coalesce(h.attempts, 0)::integer AS attempts, h.since, h.dead_at, h.settled_at,
       w.since AS waiting_since, coalesce(b.event_id, '00000000-0000-0000-0000-000000000000')::uuid AS behind,
       coalesce((SELECT l.id FROM /*schema*/discarded_jobs l WHERE l.consumer = c.name AND l.event_id = b.event_id AND l.state = 'dead'), 0)::bigint AS behind_letter,
       d.id AS letter_id, d.state AS letter_state, coalesce(d.skipped, false)::boolean AS skipped,
       coalesce(j.state::text, '')::text AS job_state, j.scheduled_at AS next_at, coalesce(j.max_attempts - j.attempt, 0)::integer AS attempts_left
  FROM (SELECT unnest(@event_ids::uuid[]) AS event_id, unnest(@types::text[]) AS type, unnest(@keys::text[]) AS key,
               unnest(@lanes::smallint[]) AS lane, unnest(@positions::bigint[]) AS pos) AS a
  CROSS JOIN /*schema*/consumers c
  JOIN /*schema*/cursors k ON k.consumer = c.name AND k.lane = a.lane
  LEFT JOIN LATERAL (SELECT /*schema*/outbox_run(c.name, a.lane, a.pos) AS run) AS r ON true
  LEFT JOIN /*schema*/processed_events p ON p.consumer = coalesce(c.dedupe, c.name) || coalesce('@' || r.run, '') AND p.event_id = a.event_id
  LEFT JOIN /*schema*/holds h ON h.consumer = c.name AND h.event_id = a.event_id
  LEFT JOIN /*schema*/river_job j ON j.id = h.job_id AND h.settled_at IS NULL AND h.dead_at IS NULL
        AND j.state IN ('available', 'pending', 'retryable', 'running', 'scheduled')
  LEFT JOIN /*schema*/waiting w ON w.consumer = c.name AND w.key = a.key AND w.pos = a.pos
  LEFT JOIN LATERAL (SELECT o.event_id FROM /*schema*/holds o WHERE o.consumer = w.consumer AND o.key = w.key ORDER BY o.pos LIMIT 1) AS b ON true
  LEFT JOIN /*schema*/discarded_jobs d ON d.consumer = c.name AND d.event_id = a.event_id
 WHERE EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                WHERE s.consumer = c.name AND (a.pos > s.from_pos OR r.run IS NOT NULL) AND a.type LIKE s.like_pattern)
    OR p.event_id IS NOT NULL OR h.event_id IS NOT NULL OR d.id IS NOT NULL
 ORDER BY c.name;

-- name: DeliveryLogByEvents :many
SELECT event_id, consumer, attempt, outcome, error, at, build, behind, since
  FROM /*schema*/delivery_log WHERE event_id = ANY (@event_ids::uuid[]) ORDER BY id;

-- name: CorrelationsFound :many
-- The correlation ids of some events, and of what some keys have between two positions, each with where it was last met below before, the
-- newest first. There is no index by key: of the lanes of the keys, all that lies between the positions is read.
WITH met AS (
    SELECT e.correlation_id, e.pos FROM /*schema*/events e WHERE e.id = ANY (@event_ids::uuid[]) AND e.pos < @before
    UNION ALL
    SELECT e.correlation_id, e.pos FROM /*schema*/events e
     WHERE e.lane = ANY (ARRAY(SELECT (hashtextextended(k, 0) & 63)::smallint FROM unnest(@keys::text[]) AS k))
       AND e.pos > @after AND e.pos < @before AND e.key = ANY (@keys::text[])
)
SELECT m.correlation_id, max(m.pos)::bigint AS pos FROM met m
 WHERE m.correlation_id <> @but::text
   -- Where it is met again above, it was on an earlier page.
   AND NOT EXISTS (SELECT FROM /*schema*/events a WHERE a.correlation_id = m.correlation_id AND a.pos >= @before
                      AND (a.id = ANY (@event_ids::uuid[]) OR a.key = ANY (@keys::text[])))
 GROUP BY m.correlation_id ORDER BY pos DESC LIMIT @most;

-- name: CorrelationsAhead :many
-- The same for what is not in the log yet. Of a backlog, only the newest is looked at.
SELECT DISTINCT n.correlation_id FROM (
    SELECT o.id, o.key, o.correlation_id FROM (SELECT * FROM /*schema*/outbox ORDER BY seq DESC LIMIT 100000) AS o
    UNION ALL
    SELECT s.id, s.key, s.correlation_id FROM (SELECT * FROM /*schema*/scheduled ORDER BY not_before LIMIT 100000) AS s
    UNION ALL
    SELECT q.id, q.key, q.correlation_id FROM (SELECT * FROM /*schema*/quarantine ORDER BY seq DESC LIMIT 100000) AS q) AS n
 WHERE n.id = ANY (@event_ids::uuid[]) OR n.key = ANY (@keys::text[])
 LIMIT @most;

-- name: LogReach :one
SELECT s.head, r.floor, EXISTS (SELECT FROM /*schema*/events e WHERE e.id = ANY (@event_ids::uuid[])) AS known
  FROM /*schema*/relay_state s, /*schema*/retention r;
