-- name: MaintainLock :one
SELECT pg_try_advisory_xact_lock((tableoid::bigint - 2147483648)::integer, 2) AS locked FROM /*schema*/relay_state;

-- name: RelayJobAlive :one
-- Whether a relay job runs and beats, or is about to run.
SELECT (EXISTS (SELECT FROM /*schema*/river_job j WHERE j.kind = 'outbox_relay' AND j.state IN ('available', 'scheduled', 'retryable', 'pending'))
    OR EXISTS (SELECT FROM /*schema*/river_job j, /*schema*/relay_state s
                WHERE j.kind = 'outbox_relay' AND j.state = 'running'
                  AND greatest(s.beat_at, j.attempted_at) > clock_timestamp() - make_interval(secs => @dead_after)))::boolean;

-- name: RelayJobsBury :exec
UPDATE /*schema*/river_job SET state = 'cancelled', finalized_at = clock_timestamp() WHERE kind = 'outbox_relay' AND state = 'running';

-- name: DeliverStuck :many
-- Deliver jobs whose process died, by the database's clock: longer running than their consumer's timeout allows. From the few jobs that
-- run to their holds: the other way, each of the holds was asked for among all jobs that have run since they were last cleaned away.
SELECT j.id, j.attempt, j.max_attempts, h.consumer, h.event_id, h.rescues, h.attempts
  FROM /*schema*/river_job j
  CROSS JOIN LATERAL (SELECT * FROM /*schema*/holds o WHERE o.job_id = j.id AND o.settled_at IS NULL AND o.dead_at IS NULL OFFSET 0) h
  JOIN (SELECT unnest(@consumers::text[]) AS consumer, unnest(@timeouts::double precision[]) AS seconds) AS t ON t.consumer = h.consumer
 WHERE j.state = 'running' AND j.kind || '' = 'outbox_deliver'
   AND greatest(h.changed_at, j.attempted_at) < clock_timestamp() - make_interval(secs => t.seconds)
 ORDER BY j.attempted_at LIMIT 1000 FOR UPDATE OF j SKIP LOCKED;

-- name: DeliverAttempts :many
-- The attempts that these jobs were in, and whose they are. One of which the token is older than its job's start had not begun: the token is
-- that of the attempt before.
SELECT coalesce(h.job_id, 0)::bigint AS job_id, h.consumer, h.event_id, h.token, h.attempts, h.changed_at AS began,
       (h.changed_at >= j.attempted_at)::boolean AS begun, e.type, e.correlation_id, e.traceparent
  FROM /*schema*/holds h
  CROSS JOIN LATERAL (SELECT i.attempted_at FROM /*schema*/river_job i WHERE i.id >= h.job_id AND i.id <= h.job_id ORDER BY i.id LIMIT 1) j
  CROSS JOIN LATERAL (SELECT l.type, l.correlation_id, coalesce(l.traceparent, '')::text AS traceparent FROM /*schema*/events l
                       WHERE l.lane = h.lane AND l.pos = h.pos OFFSET 0) e
 WHERE h.job_id = ANY (@jobs::bigint[]) AND h.settled_at IS NULL AND h.dead_at IS NULL;

-- name: DeliverRescue :exec
UPDATE /*schema*/river_job
   SET state = (CASE WHEN @discard::boolean THEN 'discarded' ELSE 'available' END)::/*schema*/river_job_state,
       attempt = CASE WHEN @free::boolean THEN greatest(attempt - 1, 0) ELSE attempt END,
       finalized_at = CASE WHEN @discard::boolean THEN clock_timestamp() END,
       scheduled_at = clock_timestamp()
 WHERE id = @id AND state = 'running';

-- name: HoldRescue :exec
UPDATE /*schema*/holds SET rescues = rescues + 1, attempts = CASE WHEN @free::boolean THEN greatest(attempts - 1, 0) ELSE attempts END,
       token = gen_random_uuid(), changed_at = clock_timestamp()
 WHERE consumer = @consumer AND event_id = @event_id;

-- name: HoldsWithoutJob :many
-- Unsettled holds that nobody works on: their job ended without a word, or is gone. (The job is asked for in order, as only the
-- index of the primary key has it: another one leads to it, too, by way of all jobs.)
SELECT h.consumer, h.event_id, h.job_id, h.attempts, e.correlation_id, e.traceparent, coalesce(j.state::text, '') AS job_state,
       (h.changed_at < clock_timestamp() - interval '1 minute')::boolean AS long
  FROM /*schema*/holds h
  LEFT JOIN LATERAL (SELECT i.state FROM /*schema*/river_job i WHERE i.id >= h.job_id AND i.id <= h.job_id ORDER BY i.id LIMIT 1) j ON true
  CROSS JOIN LATERAL (SELECT l.correlation_id, coalesce(l.traceparent, '')::text AS traceparent FROM /*schema*/events l
                       WHERE l.lane = h.lane AND l.pos = h.pos OFFSET 0) e
 WHERE h.settled_at IS NULL AND h.dead_at IS NULL AND h.changed_at < clock_timestamp() - interval '5 seconds'
   AND (j.state IS NULL OR j.state IN ('completed', 'discarded', 'cancelled'))
 ORDER BY h.since LIMIT 1000;

-- name: HoldSetJob :execrows
UPDATE /*schema*/holds SET job_id = @job_id, token = gen_random_uuid(), rescues = 0, dead_at = NULL, changed_at = clock_timestamp()
 WHERE consumer = @consumer AND event_id = @event_id AND settled_at IS NULL AND job_id IS NOT DISTINCT FROM @old_job_id;

-- name: JobsOutgrown :one
-- Whether there are many more jobs than the planner knows of, and this role may tell it. Plans are made once a connection; those that were
-- made when the table had last been analyzed without rows, as often happens to a queue, walk an index of it from end to end.
SELECT (pg_stat_get_live_tuples(oid) > 10 * greatest(reltuples, 20) AND pg_has_role(relowner, 'USAGE'))::boolean AS outgrown
  FROM pg_catalog.pg_class WHERE oid = to_regclass(@jobs::text);

-- name: JobsAnalyze :exec
-- One column: what is needed is that plans are made anew, with the number of rows.
ANALYZE (SKIP_LOCKED) /*schema*/river_job (id);
