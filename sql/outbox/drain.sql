-- name: LaneLock :one
-- A statement of its own, before any read.
SELECT pg_try_advisory_xact_lock((c.tableoid::bigint - 2147483648)::integer, c.id * 64 + @lane::integer) AS locked
  FROM /*schema*/consumers c WHERE c.name = @consumer;

-- name: DrainState :one
SELECT (c.paused_at IS NOT NULL)::boolean AS paused, k.pos, k.tries, k.suspect_pos,
       ARRAY(SELECT s.pattern FROM /*schema*/consumer_subscriptions s WHERE s.consumer = c.name)::text[] AS patterns,
       EXISTS (SELECT FROM /*schema*/holds h WHERE h.consumer = c.name AND h.lane = k.lane AND h.settled_at IS NOT NULL) AS settled
  FROM /*schema*/consumers c JOIN /*schema*/cursors k ON k.consumer = c.name
 WHERE c.name = @consumer AND k.lane = @lane;

-- name: DrainScan :one
-- How far a batch may read: every event up to here is committed, whatever commits later comes after it.
SELECT coalesce(max(pos), 0)::bigint
  FROM (SELECT e.pos FROM /*schema*/events e WHERE e.lane = @lane AND e.pos > @cursor ORDER BY e.pos LIMIT @scan) AS ahead;

-- name: DrainWindow :many
SELECT e.pos, e.id, e.type, e.key, e.lane, e.data, e.correlation_id, e.causation_id, e.traceparent, e.source,
       e.schema_version, e.occurred_at,
       EXISTS (SELECT FROM /*schema*/holds h WHERE h.consumer = @consumer AND h.key = e.key) AS held,
       (EXISTS (SELECT FROM /*schema*/processed_events p WHERE p.consumer = @consumer AND p.event_id = e.id)
        OR EXISTS (SELECT FROM /*schema*/holds h WHERE h.consumer = @consumer AND h.event_id = e.id))::boolean AS processed
  FROM /*schema*/events e
 WHERE e.lane = @lane AND e.pos > @cursor AND e.pos <= @last_pos
   AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                WHERE s.consumer = @consumer AND e.pos > s.from_pos AND e.type LIKE s.like_pattern)
 ORDER BY e.pos LIMIT @batch;

-- name: DrainPending :one
-- Asked after the lane's lock is released: a wake-up that came while it was held found it taken and left.
SELECT (EXISTS (SELECT FROM /*schema*/events e JOIN /*schema*/cursors k ON k.consumer = @consumer AND k.lane = @lane
                WHERE e.lane = @lane AND e.pos > k.pos)
    OR EXISTS (SELECT FROM /*schema*/holds h WHERE h.consumer = @consumer AND h.lane = @lane AND h.settled_at IS NOT NULL))::boolean;

-- name: DrainAdvance :exec
UPDATE /*schema*/cursors
   SET pos = @pos,
       tries = CASE WHEN @pos >= suspect_pos THEN 0 ELSE tries END
 WHERE consumer = @consumer AND lane = @lane;

-- name: DrainMarkTry :one
UPDATE /*schema*/cursors SET tries = tries + 1, suspect_pos = @suspect_pos
 WHERE consumer = @consumer AND lane = @lane RETURNING tries;

-- name: DrainForgive :exec
-- The event to blame is found: those after it are run as ever.
UPDATE /*schema*/cursors SET tries = 0 WHERE consumer = @consumer AND lane = @lane;

-- name: DrainCrashed :many
-- Other drain jobs of this lane that still count as running while we hold its lock: their processes died in a batch.
-- Not those that began just now: they are on their way to the lock.
SELECT id FROM /*schema*/river_job
 WHERE state = 'running' AND queue = @queue AND kind = 'outbox_drain' AND id <> @job_id AND (args ->> 'lane')::integer = @lane::integer
   AND (attempted_at IS NULL OR attempted_at < clock_timestamp() - interval '1 second');

-- name: DrainBuryJobs :exec
UPDATE /*schema*/river_job SET state = 'discarded', finalized_at = clock_timestamp()
 WHERE id = ANY (@ids::bigint[]) AND state = 'running';

-- name: DrainSettled :many
SELECT event_id, key FROM /*schema*/holds
 WHERE consumer = @consumer AND lane = @lane AND settled_at IS NOT NULL ORDER BY pos LIMIT @batch;

-- name: DrainWaiting :many
SELECT e.pos, e.id, e.type, e.key, e.lane, e.data, e.correlation_id, e.causation_id, e.traceparent, e.source,
       e.schema_version, e.occurred_at, false AS held,
       (EXISTS (SELECT FROM /*schema*/processed_events p WHERE p.consumer = w.consumer AND p.event_id = e.id)
        OR EXISTS (SELECT FROM /*schema*/holds h WHERE h.consumer = w.consumer AND h.event_id = e.id))::boolean AS processed
  FROM /*schema*/waiting w JOIN /*schema*/events e ON e.lane = w.lane AND e.pos = w.pos
 WHERE w.consumer = @consumer AND w.key = ANY (@keys::text[])
 ORDER BY w.pos LIMIT @batch;

-- name: ProcessedInsert :exec
INSERT INTO /*schema*/processed_events (consumer, event_id) SELECT @consumer, unnest(@event_ids::uuid[]);

-- name: WaitingInsert :exec
INSERT INTO /*schema*/waiting (consumer, key, pos, event_id, lane)
SELECT @consumer, w.key, w.pos, w.event_id, @lane
  FROM (SELECT unnest(@keys::text[]) AS key, unnest(@positions::bigint[]) AS pos, unnest(@event_ids::uuid[]) AS event_id) AS w;

-- name: WaitingDelete :exec
DELETE FROM /*schema*/waiting w
 USING (SELECT unnest(@keys::text[]) AS key, unnest(@positions::bigint[]) AS pos) AS gone
 WHERE w.consumer = @consumer AND w.key = gone.key AND w.pos = gone.pos;

-- name: HoldInsert :exec
INSERT INTO /*schema*/holds (consumer, event_id, key, lane, pos, reason, attempts, job_id)
SELECT @consumer, h.event_id, h.key, @lane, h.pos, h.reason, h.attempts, h.job_id
  FROM (SELECT unnest(@event_ids::uuid[]) AS event_id, unnest(@keys::text[]) AS key, unnest(@positions::bigint[]) AS pos,
               unnest(@reasons::text[]) AS reason, unnest(@attempts::integer[]) AS attempts, unnest(@job_ids::bigint[]) AS job_id) AS h;

-- name: HoldDelete :exec
DELETE FROM /*schema*/holds WHERE consumer = @consumer AND event_id = ANY (@event_ids::uuid[]);

-- name: HoldLift :exec
-- Lifts settled holds behind which nothing waits.
DELETE FROM /*schema*/holds h
 WHERE h.consumer = @consumer AND h.event_id = ANY (@event_ids::uuid[]) AND h.settled_at IS NOT NULL
   AND NOT EXISTS (SELECT FROM /*schema*/waiting w WHERE w.consumer = h.consumer AND w.key = h.key);

-- name: HoldBury :exec
SELECT /*schema*/outbox_bury(@consumer, b.event_id, b.job_id, NULL)
  FROM (SELECT unnest(@event_ids::uuid[]) AS event_id, unnest(@job_ids::bigint[]) AS job_id) AS b;

-- name: DeliveryLogInsert :exec
INSERT INTO /*schema*/delivery_log (consumer, event_id, attempt, outcome, error, build)
VALUES (@consumer, @event_id, @attempt, @outcome, @error, @build);

-- name: JobsRunSoon :exec
-- River's scheduler looks every few seconds; a job due before that is better off in the queue, which honours
-- scheduled_at by the database's clock.
UPDATE /*schema*/river_job SET state = 'available'
 WHERE id = ANY (@ids::bigint[]) AND state = 'scheduled' AND scheduled_at < clock_timestamp() + interval '6 seconds';
