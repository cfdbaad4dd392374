-- name: LaneLock :exec
-- Waits for the lane, as a drain does not. A statement of its own, before any read.
SELECT pg_advisory_xact_lock((c.tableoid::bigint - 2147483648)::integer, c.id * 64 + @lane::integer)
  FROM /*schema*/consumers c WHERE c.name = @consumer;

-- name: EngineBounds :exec
-- The bounds of a transaction of the engine; as SET LOCAL, they end with it. Its statements are planned once and for all:
-- planning them anew takes as long as they do. And that by an index: a table that is small now may be large in a minute, and
-- the plan is the same. For the few rows that they want, workers beside them cost more than they bring. What was set before is for the
-- handlers' own.
SELECT set_config('lock_timeout', '5s', true), set_config('statement_timeout', @statement::text, true),
       set_config('idle_in_transaction_session_timeout', @idle::text, true),
       set_config('pgoutbox.plan_cache_mode', current_setting('plan_cache_mode'), true), set_config('pgoutbox.jit', current_setting('jit'), true),
       set_config('pgoutbox.seqscan', current_setting('enable_seqscan'), true),
       set_config('pgoutbox.parallel', current_setting('max_parallel_workers_per_gather'), true),
       set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
       set_config('max_parallel_workers_per_gather', '0', true);

-- name: EngineLends :exec
-- What follows is a handler's.
SELECT set_config('plan_cache_mode', current_setting('pgoutbox.plan_cache_mode'), true), set_config('jit', current_setting('pgoutbox.jit'), true),
       set_config('enable_seqscan', current_setting('pgoutbox.seqscan'), true),
       set_config('max_parallel_workers_per_gather', current_setting('pgoutbox.parallel'), true);

-- name: EngineTakesBack :exec
-- What follows is the engine's again.
SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
       set_config('max_parallel_workers_per_gather', '0', true);

-- name: EngineCommitsLater :exec
-- The commit does not wait for the disk. That is for what a crash may undo because all that was built upon it is undone
-- with it: whatever commits later, and does wait, also waits for this.
SELECT set_config('synchronous_commit', 'off', true);

-- name: DrainTurn :one
-- The lane's lock, a statement of its own, before any read. What follows in the same pipeline is sent before we know
-- whether we got it: the setting tells it, and it reads nothing when we did not.
SELECT (set_config('pgoutbox.turn', CASE WHEN pg_try_advisory_xact_lock((c.tableoid::bigint - 2147483648)::integer, c.id * 64 + @lane::integer)
                                         THEN 'lane' ELSE '' END, true) = 'lane')::boolean AS locked
  FROM /*schema*/consumers c WHERE c.name = @consumer;

-- name: DrainState :one
-- Everything up to head is committed: what the next statement reads up to there, no later one finds more of.
SELECT (c.paused_at IS NOT NULL)::boolean AS paused, k.pos, k.tries, h.settled::boolean AS settled, r.head,
       coalesce(c.dedupe, c.name)::text AS dedupe, coalesce(k.run, 0)::bigint AS run,
       coalesce((SELECT b.appends FROM /*schema*/runs b WHERE b.id = k.run), true)::boolean AS appends,
       ARRAY(SELECT s.pattern FROM /*schema*/consumer_subscriptions s WHERE s.consumer = c.name)::text[] AS patterns,
       (set_config('pgoutbox.turn', CASE WHEN current_setting('pgoutbox.turn', true) = 'lane' AND c.paused_at IS NULL
                                         THEN CASE WHEN @ahead::boolean OR NOT h.settled THEN 'ahead' ELSE 'settled' END
                                         ELSE '' END, true) = 'ahead')::boolean AS ahead
  FROM /*schema*/consumers c
  JOIN /*schema*/cursors k ON k.consumer = c.name
  CROSS JOIN /*schema*/relay_state r
  CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM /*schema*/holds h
                                      WHERE h.consumer || '' = c.name AND h.lane = k.lane AND h.settled_at IS NOT NULL) AS settled) AS h
 WHERE c.name = @consumer AND k.lane = @lane;

-- name: DrainWindow :many
-- The wanted among the next scan events after the cursor, but not more than a batch. Whether one was processed before is
-- not asked: the insert into processed_events is what decides, in the live path it finds none, and a statement that names
-- that table locks all its partitions each time.
SELECT e.pos, e.id, e.type, e.key, e.lane, e.data, e.correlation_id, e.causation_id, e.traceparent, e.source,
       e.schema_version, e.occurred_at,
       -- 2: by this very event; 1: by another of its key; 3: it is not due. Both sets are read once, however many events there are.
       (CASE WHEN e.id IN (SELECT h.event_id FROM /*schema*/holds h WHERE h.consumer || '' = @consumer AND h.lane = @lane) THEN 2
             WHEN e.key IN (SELECT h.key FROM /*schema*/holds h WHERE h.consumer || '' = @consumer AND h.lane = @lane) THEN 1
             WHEN e.not_before > clock_timestamp() THEN 3 ELSE 0 END)::integer AS held
  FROM (SELECT * FROM /*schema*/events a
         WHERE a.lane = @lane
           AND a.pos > (SELECT k.pos FROM /*schema*/cursors k WHERE k.consumer = @consumer AND k.lane = @lane)
           -- A run ends where it says: what comes after is not its own.
           AND a.pos <= coalesce((SELECT l.to_pos FROM /*schema*/cursors k JOIN /*schema*/run_lanes l ON l.run = k.run AND l.lane = k.lane
                                   WHERE k.consumer = @consumer AND k.lane = @lane), 9223372036854775807)
         ORDER BY a.pos LIMIT @scan) AS e
 WHERE current_setting('pgoutbox.turn', true) = 'ahead'
   AND e.type LIKE ANY (ARRAY(SELECT s.like_pattern FROM /*schema*/consumer_subscriptions s WHERE s.consumer = @consumer))
   -- Past the start of the newest subscription, that is all there is to ask. A run may go further back.
   AND (e.pos > (SELECT max(s.from_pos) FROM /*schema*/consumer_subscriptions s WHERE s.consumer = @consumer)
        OR EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                    WHERE s.consumer = @consumer AND e.pos > s.from_pos AND e.type LIKE s.like_pattern)
        OR EXISTS (SELECT FROM /*schema*/cursors k WHERE k.consumer = @consumer AND k.lane = @lane AND k.run IS NOT NULL))
 ORDER BY e.pos LIMIT @batch;

-- name: DrainPending :one
-- Asked after the lane's lock is released: a wake-up that came while it was held found it taken and left. One that is still in
-- the queue will do: a drain that stays as long as the relay brings something has small batches.
-- The cursor is read first and the next position asked for in order, which is one probe of the log's index: a join, or a
-- plain EXISTS, may be planned as a walk over all that was drained.
SELECT (((SELECT e.pos FROM /*schema*/events e
           WHERE e.lane = @lane
             AND e.pos > (SELECT k.pos FROM /*schema*/cursors k WHERE k.consumer = @consumer AND k.lane = @lane)
           ORDER BY e.pos LIMIT 1) IS NOT NULL
         OR EXISTS (SELECT FROM /*schema*/holds h WHERE h.consumer || '' = @consumer AND h.lane = @lane AND h.settled_at IS NOT NULL))
        AND NOT EXISTS (SELECT FROM /*schema*/river_job j
                         WHERE j.state = 'available' AND j.queue = @queue AND j.kind = 'outbox_drain'
                           AND (j.args ->> 'lane')::integer = @lane::smallint))::boolean;

-- name: DrainAdvance :one
-- To the last event that was dealt with and, when the window held no more, past what was not wanted of what it looked at.
UPDATE /*schema*/cursors c
   SET pos = n.pos, passed = c.passed + @wanted,
       tries = CASE WHEN n.pos >= c.suspect_pos THEN 0 ELSE c.tries END
  FROM (SELECT greatest(@pos::bigint, CASE WHEN @past::boolean THEN
           (SELECT max(a.pos) FROM (SELECT e.pos FROM /*schema*/events e
                                     WHERE e.lane = @lane AND e.pos > @cursor AND e.pos <= @head
                                     ORDER BY e.pos LIMIT @scan) AS a) END) AS pos) AS n
 WHERE c.consumer = @consumer AND c.lane = @lane AND n.pos > c.pos
RETURNING c.pos;

-- name: DrainEndRun :execrows
-- The lane's run is through: the cursor goes back to where it was set back from.
UPDATE /*schema*/cursors k SET pos = l.resume_pos, passed = coalesce(l.resume_passed, k.passed), run = NULL, tries = 0
  FROM /*schema*/run_lanes l
 WHERE k.consumer = @consumer AND k.lane = @lane AND l.run = k.run AND l.lane = k.lane
   AND NOT EXISTS (SELECT FROM /*schema*/events e WHERE e.lane = k.lane AND e.pos > k.pos AND e.pos <= l.to_pos);

-- name: LettersReplayed :exec
-- A run has taken up the events of these letters.
UPDATE /*schema*/discarded_jobs SET state = 'replayed', changed_at = clock_timestamp()
 WHERE consumer = @consumer AND event_id = ANY (@event_ids::uuid[]) AND run = @run::bigint AND state = 'replaying';

-- name: DrainMarkTry :one
UPDATE /*schema*/cursors SET tries = greatest(tries + 1, @at_least::integer), suspect_pos = @suspect_pos
 WHERE consumer = @consumer AND lane = @lane RETURNING tries;

-- name: DrainForgive :exec
-- The event to blame is found: those after it are run as ever.
UPDATE /*schema*/cursors SET tries = 0 WHERE consumer = @consumer AND lane = @lane;

-- name: DrainBegins :exec
-- The drain of this job, which counts as running, begins now, or in so many seconds at the latest. It need not wait for the disk: a crash of
-- the server that undoes it leaves no batch that was built upon it.
UPDATE /*schema*/river_job SET attempted_at = clock_timestamp() + make_interval(secs => @later::float8)
 WHERE id = @job_id AND state = 'running' AND (SELECT set_config('synchronous_commit', 'off', true)) <> '';

-- name: DrainCrashed :many
-- Other drain jobs of this lane that still count as running while we hold its lock: their processes died in a batch.
-- Not those that began just now: they are on their way to the lock. Nor those that wait for room in their process: they are to begin later
-- (DrainBegins).
SELECT id FROM /*schema*/river_job
 WHERE current_setting('pgoutbox.turn', true) = 'lane' AND state = 'running' AND queue = @queue AND kind = 'outbox_drain' AND id <> @job_id AND (args ->> 'lane')::integer = @lane::integer
   AND (attempted_at IS NULL OR attempted_at < clock_timestamp() - interval '1 second');

-- name: DrainJobDone :exec
-- A wake-up is of no use once it is done, and there are many: as completed it would go into each of River's indexes once more, and be
-- there for the cleaner an hour later. River knows that a job can be gone when it completes it.
DELETE FROM /*schema*/river_job WHERE id = @id AND state = 'running';

-- name: DrainBuryJobs :exec
UPDATE /*schema*/river_job SET state = 'discarded', finalized_at = clock_timestamp()
 WHERE id = ANY (@ids::bigint[]) AND state = 'running';

-- name: DrainSettled :many
SELECT event_id, key FROM /*schema*/holds
 WHERE current_setting('pgoutbox.turn', true) = 'settled'
   AND consumer || '' = @consumer AND lane = @lane AND settled_at IS NOT NULL ORDER BY pos LIMIT @batch;

-- name: DrainWaiting :many
-- Of each key its first few, so that no more is read than is run however much waits behind it; which rows is settled before the log
-- is asked for them, one by one. The planner does not know how few keys there are, and of a join of both makes a walk through the
-- whole log.
SELECT e.pos, e.id, e.type, e.key, e.lane, e.data, e.correlation_id, e.causation_id, e.traceparent, e.source,
       e.schema_version, e.occurred_at, (CASE WHEN e.not_before > clock_timestamp() THEN 3 ELSE 0 END)::integer AS held,
       coalesce(w.run, 0)::bigint AS run, coalesce(NOT b.appends, false)::boolean AS muted
  FROM (SELECT f.pos, f.lane, f.run
          FROM (SELECT unnest(@keys::text[]) AS key) k
          CROSS JOIN LATERAL (SELECT i.pos, i.lane, i.run FROM /*schema*/waiting i
                               WHERE i.consumer = @consumer AND i.key = k.key ORDER BY i.pos LIMIT @share) f
         ORDER BY f.pos LIMIT @batch) w
  CROSS JOIN LATERAL (SELECT * FROM /*schema*/events l WHERE l.lane = w.lane AND l.pos = w.pos OFFSET 0) e
  LEFT JOIN /*schema*/runs b ON b.id = w.run
 ORDER BY w.pos;

-- name: DrainProcessed :many
-- Which of the events were dealt with before, or are held themselves.
SELECT p.event_id FROM /*schema*/processed_events p WHERE p.consumer = @dedupe AND p.event_id = ANY (@event_ids::uuid[])
UNION
SELECT h.event_id FROM /*schema*/holds h WHERE h.consumer = @consumer AND h.event_id = ANY (@event_ids::uuid[]);

-- name: EventsNotBefore :many
SELECT e.pos, extract(epoch FROM e.not_before - clock_timestamp())::float8 AS seconds
  FROM /*schema*/events e WHERE e.lane = @lane AND e.pos = ANY (@positions::bigint[]) AND e.not_before IS NOT NULL;

-- name: ProcessedInsert :exec
INSERT INTO /*schema*/processed_events (consumer, event_id) SELECT @dedupe, unnest(@event_ids::uuid[]);

-- name: WaitingInsert :exec
INSERT INTO /*schema*/waiting (consumer, key, pos, event_id, lane, run)
SELECT @consumer, w.key, w.pos, w.event_id, @lane, nullif(@run::bigint, 0)
  FROM (SELECT unnest(@keys::text[]) AS key, unnest(@positions::bigint[]) AS pos, unnest(@event_ids::uuid[]) AS event_id) AS w;

-- name: WaitingRelease :exec
-- What waited goes on, and the delivery log says what it waited for. One probe for each: as a join it may be planned as a walk over all
-- that waits, once for each of them.
WITH gone AS (
    DELETE FROM /*schema*/waiting w
     WHERE w.ctid = ANY (ARRAY(
        SELECT (SELECT i.ctid FROM /*schema*/waiting i WHERE i.consumer = @consumer AND i.key = g.key AND i.pos = g.pos)
          FROM (SELECT unnest(@keys::text[]) AS key, unnest(@positions::bigint[]) AS pos) AS g))
    RETURNING w.event_id, w.key, w.pos, w.since
)
INSERT INTO /*schema*/delivery_log (consumer, event_id, attempt, outcome, behind, since, build)
SELECT @consumer, g.event_id, 0, 'waited', h.event_id, g.since, @build
  FROM gone g
  LEFT JOIN (SELECT unnest(@held_keys::text[]) AS key, unnest(@held_ids::uuid[]) AS event_id) AS h ON h.key = g.key
 ORDER BY g.pos;

-- name: HoldInsert :exec
INSERT INTO /*schema*/holds (consumer, event_id, key, lane, pos, reason, attempts, job_id, run)
SELECT @consumer, h.event_id, h.key, @lane, h.pos, h.reason, h.attempts, h.job_id, nullif(h.run, 0)
  FROM (SELECT unnest(@event_ids::uuid[]) AS event_id, unnest(@keys::text[]) AS key, unnest(@positions::bigint[]) AS pos,
               unnest(@reasons::text[]) AS reason, unnest(@attempts::integer[]) AS attempts, unnest(@job_ids::bigint[]) AS job_id, unnest(@runs::bigint[]) AS run) AS h;

-- name: HoldDelete :exec
DELETE FROM /*schema*/holds h
 WHERE h.ctid = ANY (ARRAY(SELECT (SELECT i.ctid FROM /*schema*/holds i WHERE i.consumer = @consumer AND i.event_id = gone.id)
                             FROM unnest(@event_ids::uuid[]) AS gone(id)));

-- name: HoldLift :exec
-- Lifts settled holds behind which nothing waits.
DELETE FROM /*schema*/holds h
 WHERE h.ctid = ANY (ARRAY(SELECT (SELECT i.ctid FROM /*schema*/holds i WHERE i.consumer = @consumer AND i.event_id = gone.id)
                             FROM unnest(@event_ids::uuid[]) AS gone(id)))
   AND h.settled_at IS NOT NULL AND (SELECT w.pos FROM /*schema*/waiting w WHERE w.consumer = h.consumer AND w.key = h.key LIMIT 1) IS NULL;

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
