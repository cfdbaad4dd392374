-- name: ConsumerRegisterLock :exec
SELECT pg_advisory_xact_lock((tableoid::bigint - 2147483648)::integer, 1) FROM /*schema*/relay_state;

-- name: ConsumerLanesLock :exec
-- Waits for all lanes of a consumer: no drain of it is under way from here on. A statement of its own, before any read.
SELECT pg_advisory_xact_lock((c.tableoid::bigint - 2147483648)::integer, c.id * 64 + n.lane)
  FROM /*schema*/consumers c, generate_series(0, 63) AS n(lane) WHERE c.name = @consumer;

-- name: ConsumerJobsLock :many
-- Its unfinished deliver jobs. Jobs are locked before holds, everywhere.
SELECT id FROM /*schema*/river_job
 WHERE queue = @queue AND state IN ('available', 'pending', 'retryable', 'running', 'scheduled') FOR UPDATE;

-- name: ConsumerJobsCancel :exec
UPDATE /*schema*/river_job SET state = 'cancelled', finalized_at = clock_timestamp()
 WHERE queue = ANY (@queues::text[]) AND state IN ('available', 'pending', 'retryable', 'running', 'scheduled');

-- name: ConsumerRename :execrows
UPDATE /*schema*/consumers SET name = @name, dedupe = coalesce(dedupe, name) WHERE name = @old_name;

-- name: ConsumerRenameHolds :many
UPDATE /*schema*/holds h SET consumer = @name WHERE h.consumer = @old_name
RETURNING h.event_id, h.job_id, h.attempts, (h.settled_at IS NULL AND h.dead_at IS NULL)::boolean AS open,
          (SELECT e.correlation_id FROM /*schema*/events e WHERE e.lane = h.lane AND e.pos = h.pos)::text AS correlation_id;

-- name: ConsumerRenameWaiting :exec
UPDATE /*schema*/waiting SET consumer = @name WHERE consumer = @old_name;

-- name: ConsumerRenameLetters :exec
UPDATE /*schema*/discarded_jobs SET consumer = @name WHERE consumer = @old_name;

-- name: ConsumerRenameEdits :exec
UPDATE /*schema*/event_edits SET consumer = @name WHERE consumer = @old_name;

-- name: ConsumerRenameLog :exec
UPDATE /*schema*/delivery_log SET consumer = @name WHERE consumer = @old_name;

-- name: ConsumerRetire :exec
INSERT INTO /*schema*/retired_consumers (name, successor) VALUES (@name, @successor)
ON CONFLICT (name) DO UPDATE SET successor = excluded.successor, at = clock_timestamp();

-- name: ConsumerRetired :many
-- Names that are not to be registered again for a while: a process of an older build may still know them.
SELECT name, successor FROM /*schema*/retired_consumers r
 WHERE r.at > clock_timestamp() - make_interval(secs => @seconds) AND NOT EXISTS (SELECT FROM /*schema*/consumers c WHERE c.name = r.name);

-- name: ConsumerID :one
SELECT id FROM /*schema*/consumers WHERE name = @name FOR UPDATE;

-- name: ConsumerKind :one
SELECT kind FROM /*schema*/consumers WHERE name = @name FOR UPDATE;

-- name: ConsumerUnsettledTypes :many
SELECT DISTINCT e.type FROM (SELECT h.lane, h.pos FROM /*schema*/holds h
                               WHERE h.consumer = @consumer AND h.settled_at IS NULL
                              UNION ALL SELECT w.lane, w.pos FROM /*schema*/waiting w WHERE w.consumer = @consumer) AS u
  JOIN /*schema*/events e ON e.lane = u.lane AND e.pos = u.pos;

-- name: ConsumerUnsubscribe :exec
DELETE FROM /*schema*/consumer_subscriptions WHERE consumer = @consumer AND pattern = @pattern;

-- name: ConsumerRemoveHolds :execrows
DELETE FROM /*schema*/holds WHERE consumer = @consumer;

-- name: ConsumerRemoveWaiting :execrows
DELETE FROM /*schema*/waiting WHERE consumer = @consumer;

-- name: ConsumerRemoveEdits :exec
DELETE FROM /*schema*/event_edits WHERE consumer = @consumer;

-- name: ConsumerRemoveLetters :execrows
-- Letters are kept, under a name that no consumer can have; those that were dead are given up.
UPDATE /*schema*/discarded_jobs SET consumer = @kept_as, changed_at = clock_timestamp(),
       state = CASE WHEN state IN ('dead', 'replaying') THEN 'dismissed' ELSE state END
 WHERE consumer = @consumer;

-- name: ConsumerRemove :execrows
DELETE FROM /*schema*/consumers WHERE name = @name;

-- name: ConsumerRegisterHead :one
-- Stops the log until the registration is committed: what is relayed after the position that it starts from is read by
-- drains that know of it.
SELECT s.head, r.floor, r.floor_at FROM /*schema*/relay_state s, /*schema*/retention r FOR SHARE;

-- name: LogBounds :one
-- Keeps retention from raising the floor until the transaction ends, and stops nothing else.
SELECT s.head, r.floor, r.floor_at FROM /*schema*/relay_state s, /*schema*/retention r FOR SHARE OF r;

-- name: ConsumerKnown :one
SELECT EXISTS (SELECT FROM /*schema*/consumers WHERE name = @name);

-- name: ConsumerRegister :exec
-- A name that was used before is deduplicated under another: what somebody else has processed under it is not this one's work.
INSERT INTO /*schema*/consumers (name, kind, ordered, on_dead, dedupe)
SELECT @name, @kind, @ordered, @on_dead,
       CASE WHEN EXISTS (SELECT FROM /*schema*/processed_events p WHERE p.consumer = @name)
              OR EXISTS (SELECT FROM /*schema*/consumers c WHERE c.dedupe = @name) THEN @name || '@' || gen_random_uuid() END
ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, ordered = excluded.ordered, on_dead = excluded.on_dead
 WHERE (consumers.kind, consumers.ordered, consumers.on_dead) IS DISTINCT FROM (excluded.kind, excluded.ordered, excluded.on_dead);

-- name: ConsumerRegisterCursors :exec
INSERT INTO /*schema*/cursors (consumer, lane, pos)
SELECT @consumer, lane, @pos FROM generate_series(0, 63) AS lane
ON CONFLICT DO NOTHING;

-- name: ConsumerSubscribe :exec
INSERT INTO /*schema*/consumer_subscriptions (consumer, pattern, from_pos) VALUES (@consumer, @pattern, @from_pos)
ON CONFLICT DO NOTHING;

-- name: EventAt :one
-- When the event at a position was relayed: a probe of each lane.
SELECT e.relayed_at FROM /*schema*/events e
 WHERE e.lane = ANY (SELECT generate_series(0, 63)::smallint) AND e.pos = @pos LIMIT 1;

-- name: ConsumerPatterns :many
SELECT consumer, pattern FROM /*schema*/consumer_subscriptions ORDER BY consumer, pattern;

-- name: ConsumerSubscriptions :many
SELECT pattern, from_pos FROM /*schema*/consumer_subscriptions WHERE consumer = @consumer ORDER BY pattern;

-- name: ConsumerList :many
SELECT c.name, c.kind, c.ordered, c.on_dead, c.paused_at, c.created_at,
       ARRAY(SELECT s.pattern FROM /*schema*/consumer_subscriptions s WHERE s.consumer = c.name ORDER BY s.pattern)::text[] AS patterns
  FROM /*schema*/consumers c ORDER BY c.name;

-- name: ConsumerLag :one
-- What is ahead of the cursors and wanted, and how old the oldest of it is. Counted event by event: see ConsumerCounts and StatsList.
-- A run takes up again what was wanted of its range; what lies between its end and where the cursor goes on is passed already.
SELECT count(*) AS events, coalesce(extract(epoch FROM clock_timestamp() - min(e.occurred_at)), 0)::double precision AS oldest_seconds
  FROM /*schema*/cursors c
  LEFT JOIN /*schema*/run_lanes l ON l.run = c.run AND l.lane = c.lane
  JOIN /*schema*/events e ON e.lane = c.lane AND e.pos > c.pos
 WHERE c.consumer = @consumer
   AND (l.run IS NULL OR e.pos <= l.to_pos OR e.pos > l.resume_pos)
   AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                WHERE s.consumer = c.consumer AND (e.pos > s.from_pos OR e.pos <= l.to_pos) AND e.type LIKE s.like_pattern);

-- name: ConsumerBehind :one
-- Whether anything that is wanted is ahead of the cursors.
SELECT EXISTS (SELECT FROM /*schema*/cursors c
  LEFT JOIN /*schema*/run_lanes l ON l.run = c.run AND l.lane = c.lane
  JOIN /*schema*/events e ON e.lane = c.lane AND e.pos > c.pos
 WHERE c.consumer = @consumer
   AND (l.run IS NULL OR e.pos <= l.to_pos OR e.pos > l.resume_pos)
   AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                WHERE s.consumer = c.consumer AND (e.pos > s.from_pos OR e.pos <= l.to_pos) AND e.type LIKE s.like_pattern));

-- name: ConsumerHolds :one
SELECT count(*) FILTER (WHERE settled_at IS NULL AND dead_at IS NULL) AS in_flight,
       count(DISTINCT key) FILTER (WHERE reason <> 'external' OR dead_at IS NOT NULL) AS held_keys,
       count(*) FILTER (WHERE dead_at IS NOT NULL AND settled_at IS NULL) AS dead,
       (SELECT count(*) FROM /*schema*/waiting w WHERE w.consumer = @consumer) AS waiting
  FROM /*schema*/holds WHERE consumer = @consumer;

-- name: ConsumerCounts :one
-- All of it counted, as far as there is not much: in no lane and no table more than @most rows are looked at, and whole says whether
-- that were all.
WITH ahead AS (
    SELECT coalesce(sum(n.wanted), 0)::bigint AS lag, coalesce(bool_and(n.looked < @most_of_lane::bigint), true)::boolean AS whole,
           coalesce(extract(epoch FROM clock_timestamp() - min(n.oldest_at)), 0)::double precision AS oldest_seconds
      FROM (SELECT k.lane, count(*) AS looked, count(*) FILTER (WHERE e.wanted) AS wanted, min(e.occurred_at) FILTER (WHERE e.wanted) AS oldest_at
              FROM /*schema*/cursors k
              LEFT JOIN /*schema*/run_lanes l ON l.run = k.run AND l.lane = k.lane
             CROSS JOIN LATERAL (
                   SELECT b.occurred_at,
                          ((l.run IS NULL OR b.pos <= l.to_pos OR b.pos > l.resume_pos)
                           AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                                        WHERE s.consumer = @consumer AND (b.pos > s.from_pos OR b.pos <= l.to_pos)
                                          AND b.type LIKE s.like_pattern)) AS wanted
                     FROM (SELECT i.pos, i.type, i.occurred_at FROM /*schema*/events i
                            WHERE i.lane = k.lane AND i.pos > k.pos ORDER BY i.pos LIMIT @most_of_lane::bigint) AS b OFFSET 0) AS e
             WHERE k.consumer = @consumer GROUP BY k.lane) AS n
), held AS (
    SELECT count(*) AS looked, count(*) FILTER (WHERE i.settled_at IS NULL AND i.dead_at IS NULL) AS in_flight,
           count(DISTINCT i.key) FILTER (WHERE i.reason <> 'external' OR i.dead_at IS NOT NULL) AS held_keys,
           count(*) FILTER (WHERE i.dead_at IS NOT NULL AND i.settled_at IS NULL) AS dead
      FROM (SELECT b.key, b.reason, b.settled_at, b.dead_at FROM /*schema*/holds b WHERE b.consumer = @consumer LIMIT @most::bigint) AS i
), parked AS (
    SELECT count(*) AS waiting FROM (SELECT b.pos FROM /*schema*/waiting b WHERE b.consumer = @consumer LIMIT @most::bigint) AS i
), gone AS (
    SELECT coalesce(sum(k.passed), 0)::bigint AS passed FROM /*schema*/cursors k WHERE k.consumer = @consumer
)
SELECT a.lag, a.oldest_seconds, h.in_flight, h.held_keys, h.dead, w.waiting, g.passed,
       (a.whole AND h.looked < @most::bigint AND w.waiting < @most::bigint)::boolean AS whole
  FROM ahead a, held h, parked w, gone g;

-- name: ConsumerPassed :one
SELECT coalesce(sum(k.passed), 0)::bigint FROM /*schema*/cursors k WHERE k.consumer = @consumer;

-- name: ConsumerPaused :one
SELECT EXISTS (SELECT FROM /*schema*/consumers WHERE name = @name AND paused_at IS NOT NULL);

-- name: ConsumerPause :one
UPDATE /*schema*/consumers SET paused_at = coalesce(paused_at, clock_timestamp()) WHERE name = @name RETURNING name;

-- name: ConsumerResume :one
UPDATE /*schema*/consumers SET paused_at = NULL, resumed_at = CASE WHEN paused_at IS NULL THEN resumed_at ELSE clock_timestamp() END WHERE name = @name RETURNING name;
