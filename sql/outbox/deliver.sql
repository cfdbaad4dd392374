-- name: JobLockRunning :one
SELECT id FROM /*schema*/river_job WHERE id = @id AND state = 'running' FOR UPDATE;

-- name: JobLock :exec
SELECT id FROM /*schema*/river_job WHERE id = @id FOR UPDATE;

-- name: DeliverJobDone :exec
-- A job that is done is of no more use than a wake-up: see DrainJobDone. Not only a running one: an attempt that was fenced off may
-- have ended it in the meantime, as River knows no fence. Its hold is settled before it, and the setting tells the trigger that there
-- is nothing to bury, which it would find out in a subtransaction of its own.
DELETE FROM /*schema*/river_job
 WHERE id = @id AND state IN ('available', 'pending', 'retryable', 'running', 'scheduled') AND set_config('pgoutbox.done', id::text, true) <> '';

-- name: DeliverTurn :one
-- Tells the next statements of the pipeline whether the attempt may begin: its job, locked before, runs, and the consumer
-- is not paused.
SELECT (c.paused_at IS NOT NULL)::boolean AS paused, coalesce(c.dedupe, c.name)::text AS dedupe,
       (set_config('pgoutbox.turn', CASE WHEN c.paused_at IS NULL AND EXISTS (SELECT FROM /*schema*/river_job j WHERE j.id = @job_id AND j.state = 'running')
                                         THEN 'deliver' ELSE '' END, true) = 'deliver')::boolean AS may
  FROM /*schema*/consumers c WHERE c.name = @consumer;

-- name: HoldClaim :one
-- Begins an attempt: the new token fences off every earlier one.
UPDATE /*schema*/holds SET token = gen_random_uuid(), attempts = attempts + 1, changed_at = clock_timestamp()
 WHERE current_setting('pgoutbox.turn', true) = 'deliver'
   AND consumer = @consumer AND event_id = @event_id AND job_id = @job_id AND coalesce(settled_at, dead_at) IS NULL
RETURNING token, attempts;

-- name: HoldLock :one
-- (Asked so that no other index than that of the primary key is of use.)
SELECT token, attempts, rescues FROM /*schema*/holds
 WHERE consumer = @consumer AND event_id = @event_id AND token = @token AND coalesce(settled_at, dead_at) IS NULL
   FOR UPDATE;

-- name: HoldSettle :execrows
UPDATE /*schema*/holds SET settled_at = clock_timestamp(), changed_at = clock_timestamp(), outcome = @outcome,
       token = gen_random_uuid(), dead_at = NULL
 WHERE consumer = @consumer AND event_id = @event_id AND settled_at IS NULL;

-- name: EventForDelivery :one
-- The event as an operator may have mended it for this consumer. That the log comes after the hold is settled: of tables that were empty when their
-- statistics were taken, the planner may begin a join with a walk through the log.
SELECT e.pos, e.id, e.type, e.key, e.lane, coalesce(x.data, e.data)::jsonb AS data, e.correlation_id, e.causation_id, e.traceparent,
       e.source, e.schema_version, e.occurred_at, 0::integer AS held,
       coalesce(h.run, 0)::bigint AS run, coalesce(NOT b.appends, false)::boolean AS muted
  FROM /*schema*/holds h
  CROSS JOIN LATERAL (SELECT * FROM /*schema*/events l WHERE l.lane = h.lane AND l.pos = h.pos OFFSET 0) e
  LEFT JOIN /*schema*/runs b ON b.id = h.run
  LEFT JOIN /*schema*/event_edits x ON x.consumer = @consumer AND x.event_id = @event_id AND x.redacted_at IS NULL
 WHERE current_setting('pgoutbox.turn', true) = 'deliver' AND h.consumer = @consumer AND h.event_id = @event_id;

-- name: ProcessedExists :one
SELECT EXISTS (SELECT FROM /*schema*/processed_events p
                WHERE p.event_id = @event_id
                  AND p.consumer = (SELECT coalesce(c.dedupe, c.name) || coalesce('@' || h.run, '')
                                      FROM /*schema*/holds h JOIN /*schema*/consumers c ON c.name = h.consumer
                                     WHERE h.consumer = @consumer AND h.event_id = @event_id));

-- name: ProcessedClaim :execrows
-- None: it was processed before. Whoever does so at this moment is waited for.
INSERT INTO /*schema*/processed_events (consumer, event_id) VALUES (@dedupe, @event_id) ON CONFLICT DO NOTHING;

-- name: LetterReplayed :exec
UPDATE /*schema*/discarded_jobs SET state = 'replayed', changed_at = clock_timestamp()
 WHERE consumer = @consumer AND event_id = @event_id AND state = 'replaying';
