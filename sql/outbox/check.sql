-- name: CheckBounds :exec
-- The bounds of a snapshot of a check. Its statements are planned for the range that they are given, and are hash joins of what
-- fits into the memory they may take, one process each: whoever works beside it needs the other processors.
SELECT set_config('lock_timeout', '5s', true), set_config('statement_timeout', '60s', true),
       set_config('idle_in_transaction_session_timeout', '60s', true), set_config('work_mem', '64MB', true),
       set_config('plan_cache_mode', 'force_custom_plan', true), set_config('jit', 'off', true),
       set_config('max_parallel_workers_per_gather', '0', true);

-- name: CheckHeads :one
-- The log has every position above the floor, up to its head.
SELECT head, (SELECT r.floor FROM /*schema*/retention r) AS floor, (SELECT count(*) FROM /*schema*/outbox) AS outbox,
       (SELECT count(*) FROM /*schema*/quarantine) AS quarantined
  FROM /*schema*/relay_state;

-- name: CheckConsumers :many
SELECT c.name, coalesce(c.dedupe, c.name)::text AS dedupe,
       ARRAY(SELECT s.like_pattern FROM /*schema*/consumer_subscriptions s WHERE s.consumer = c.name ORDER BY s.pattern)::text[] AS patterns,
       ARRAY(SELECT s.from_pos FROM /*schema*/consumer_subscriptions s WHERE s.consumer = c.name ORDER BY s.pattern)::bigint[] AS starts
  FROM /*schema*/consumers c ORDER BY c.name;

-- name: CheckRuns :many
SELECT id, consumer, from_pos, to_pos, (stopped_at IS NOT NULL)::boolean AS stopped FROM /*schema*/runs ORDER BY id;

-- name: CheckStranded :many
-- Waiting rows that no hold stands before: nothing would ever release them.
SELECT w.consumer, w.key, w.event_id FROM /*schema*/waiting w
 WHERE NOT EXISTS (SELECT FROM /*schema*/holds h WHERE h.consumer = w.consumer AND h.key = w.key)
 ORDER BY w.consumer, w.key, w.pos LIMIT @most;

-- name: CheckHolds :many
-- Holds that are not what they should be. The reconciler gives a hold that lost its job another within seconds.
SELECT h.consumer, h.event_id, h.lane, h.pos, h.lost, h.astray, h.nobodys, h.letterless, h.idle FROM (
    SELECT h.consumer, h.event_id, h.lane, h.pos,
           (h.pos > @floor AND (SELECT true FROM /*schema*/events e
                                 WHERE e.lane = h.lane AND e.pos = h.pos AND e.id = h.event_id AND e.key = h.key LIMIT 1) IS NULL)::boolean AS lost,
           (h.lane <> hashtextextended(h.key, 0) & 63)::boolean AS astray,
           ((SELECT true FROM /*schema*/consumers c WHERE c.name = h.consumer) IS NULL)::boolean AS nobodys,
           (h.settled_at IS NULL AND h.dead_at IS NOT NULL
            AND (SELECT true FROM /*schema*/discarded_jobs d
                  WHERE d.consumer = h.consumer AND d.event_id = h.event_id AND d.state = 'dead' LIMIT 1) IS NULL)::boolean AS letterless,
           (h.settled_at IS NULL AND h.dead_at IS NULL AND h.changed_at < clock_timestamp() - interval '1 minute'
            AND (SELECT true FROM /*schema*/river_job j
                  WHERE j.id = h.job_id AND j.state IN ('available', 'pending', 'retryable', 'running', 'scheduled') LIMIT 1) IS NULL)::boolean AS idle
      FROM /*schema*/holds h) AS h
 WHERE lost OR astray OR nobodys OR letterless OR idle
 ORDER BY pos, consumer LIMIT @most;

-- name: CheckWaiting :many
SELECT w.consumer, w.event_id, w.lane, w.pos, w.lost, w.astray FROM (
    SELECT w.consumer, w.event_id, w.lane, w.pos,
           (w.pos > @floor AND (SELECT true FROM /*schema*/events e
                                 WHERE e.lane = w.lane AND e.pos = w.pos AND e.id = w.event_id AND e.key = w.key LIMIT 1) IS NULL)::boolean AS lost,
           (w.lane <> hashtextextended(w.key, 0) & 63)::boolean AS astray
      FROM /*schema*/waiting w) AS w
 WHERE lost OR astray
 ORDER BY pos, consumer LIMIT @most;

-- name: CheckLetters :many
-- Letters whose key should be held and is not.
SELECT d.id, d.consumer, d.event_id FROM /*schema*/discarded_jobs d
 WHERE d.state = 'dead' AND NOT d.skipped
   AND (SELECT true FROM /*schema*/holds h
         WHERE h.consumer = d.consumer AND h.event_id = d.event_id AND h.settled_at IS NULL AND h.dead_at IS NOT NULL LIMIT 1) IS NULL
 ORDER BY d.id LIMIT @most;

-- name: CheckCursors :many
-- Each consumer has a cursor in each lane, not above the head; one that a run has set back is within its part of that run.
SELECT k.consumer, k.lane, k.pos, k.run, k.missing, k.beyond, k.runless, k.outside FROM (
    SELECT c.name AS consumer, n.lane::smallint AS lane, coalesce(k.pos, 0)::bigint AS pos, coalesce(k.run, 0)::bigint AS run,
           (k.lane IS NULL)::boolean AS missing,
           coalesce(greatest(k.pos, l.resume_pos) > s.head, false)::boolean AS beyond,
           (k.run IS NOT NULL AND l.run IS NULL)::boolean AS runless,
           coalesce(r.consumer <> c.name OR r.stopped_at IS NOT NULL OR r.ended_at IS NOT NULL
                    OR k.pos < r.from_pos OR k.pos > l.to_pos, false)::boolean AS outside
      FROM /*schema*/consumers c
      CROSS JOIN generate_series(0, 63) AS n(lane)
      CROSS JOIN /*schema*/relay_state s
      LEFT JOIN /*schema*/cursors k ON k.consumer = c.name AND k.lane = n.lane
      LEFT JOIN /*schema*/run_lanes l ON l.run = k.run AND l.lane = k.lane
      LEFT JOIN /*schema*/runs r ON r.id = k.run) AS k
 WHERE missing OR beyond OR runless OR outside
 ORDER BY consumer, lane LIMIT @most;

-- name: CheckBeyond :one
-- The highest position of the log, if that is above its head.
SELECT coalesce(max(pos), 0)::bigint FROM (
    SELECT (SELECT e.pos FROM /*schema*/events e WHERE e.lane = n.lane::smallint ORDER BY e.pos DESC LIMIT 1) AS pos
      FROM generate_series(0, 63) AS n(lane)) AS last
 WHERE pos > (SELECT head FROM /*schema*/relay_state);

-- name: CheckLog :one
-- ids are those that nearly all of the range are between, by a sample: ids are by time, but for those of producers that make their own.
SELECT count(*) AS events,
       coalesce(percentile_disc(ARRAY[0.005, 0.995]) WITHIN GROUP (ORDER BY e.id) FILTER (WHERE e.pos % @sample::bigint = 0), '{}')::uuid[] AS ids,
       coalesce(array_agg(e.id) FILTER (WHERE e.lane <> hashtextextended(e.key, 0) & 63), '{}')::uuid[] AS astray
  FROM /*schema*/events e
 WHERE e.lane = ANY (ARRAY(SELECT generate_series(0, 63)::smallint)) AND e.pos > @from_pos AND e.pos <= @to_pos;

-- name: CheckOrder :one
-- Within a key numbers rise with positions. This looks for events whose number is not above all earlier ones of the range, whatever
-- their key: there are few of them.
SELECT count(*) FILTER (WHERE o.pos = o.before AND o.pos > @from_pos::bigint) AS doubled,
       coalesce(array_agg(o.lane) FILTER (WHERE o.seq <= o.highest), '{}')::smallint[] AS lanes,
       coalesce(array_agg(o.pos) FILTER (WHERE o.seq <= o.highest), '{}')::bigint[] AS positions
  FROM (SELECT e.lane, e.pos, e.seq, lag(e.pos) OVER w AS before, max(e.seq) OVER w AS highest FROM /*schema*/events e
         WHERE e.lane = ANY (ARRAY(SELECT generate_series(0, 63)::smallint)) AND e.pos > @back_to AND e.pos <= @to_pos
        WINDOW w AS (ORDER BY e.pos ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS o;

-- name: CheckLate :one
-- Looks at those with all of their keys. An event is out of order only if its time is as well: numbers begin anew when the database is
-- upgraded. It was moved twice if both its number and its id were there before: a producer may write an id twice, with two numbers.
WITH late AS MATERIALIZED (
    SELECT e.key FROM (SELECT unnest(@lanes::smallint[]) AS lane, unnest(@positions::bigint[]) AS pos) AS n
      JOIN /*schema*/events e ON e.lane = n.lane AND e.pos = n.pos AND e.pos > @back_to AND e.pos <= @to_pos
), k AS MATERIALIZED (
    SELECT e.id, e.pos, e.seq < lag(e.seq) OVER w AND e.occurred_at < lag(e.occurred_at) OVER w AS disordered,
           lag(e.pos) OVER (PARTITION BY e.id, e.seq ORDER BY e.pos) IS NOT NULL AS repeated
      FROM /*schema*/events e
     WHERE e.lane = ANY (ARRAY(SELECT generate_series(0, 63)::smallint)) AND e.pos > @back_to AND e.pos <= @to_pos
       AND e.key IN (SELECT late.key FROM late)
    WINDOW w AS (PARTITION BY e.key COLLATE "C" ORDER BY e.pos)
)
SELECT ARRAY(SELECT k.id FROM k WHERE k.pos > @from_pos::bigint AND k.disordered ORDER BY k.pos LIMIT @most)::uuid[] AS disordered,
       ARRAY(SELECT k.id FROM k WHERE k.pos > @from_pos::bigint AND k.repeated ORDER BY k.pos LIMIT @most)::uuid[] AS repeated;

-- name: CheckUnfinished :many
-- What a range has in the tables that are small, event by event; final: nothing more will come of it.
SELECT u.consumer, u.lane, u.pos, bool_and(u.final)::boolean AS final FROM (
    SELECT h.consumer, h.lane, h.pos, false AS final FROM /*schema*/holds h WHERE h.pos > @from_pos AND h.pos <= @to_pos
    UNION ALL
    SELECT w.consumer, w.lane, w.pos, false FROM /*schema*/waiting w WHERE w.pos > @from_pos AND w.pos <= @to_pos
    UNION ALL
    SELECT d.consumer, d.lane, d.pos, d.state = 'dismissed' FROM /*schema*/discarded_jobs d
     WHERE d.pos > @from_pos AND d.pos <= @to_pos AND d.state <> 'replayed') AS u
 GROUP BY u.consumer, u.lane, u.pos;

-- name: CheckUnfinishedRanges :many
-- The ranges that have any that is not final.
SELECT DISTINCT ((u.pos - 1) / @step::bigint)::bigint FROM (
    SELECT h.pos FROM /*schema*/holds h
    UNION ALL SELECT w.pos FROM /*schema*/waiting w
    UNION ALL SELECT d.pos FROM /*schema*/discarded_jobs d WHERE d.state IN ('dead', 'replaying')) AS u;

-- name: CheckWindow :one
-- How many rows a join with processed_events would read, as far as that is worth knowing.
SELECT count(*) FROM (SELECT FROM /*schema*/processed_events p
                       WHERE p.consumer = ANY (@names::text[]) AND p.event_id >= @low::uuid AND p.event_id <= @high::uuid LIMIT @most) AS p;

-- name: CheckPlaces :one
-- A consumer's events of a range. Nearly every one is either ahead of the cursor or processed, which is what is looked at here, in one
-- pass over both tables; those that are neither or both are doubtful, and so are those whose processed row may lie
-- outside of what was read. Which run an event belongs to is asked only where one touches the range.
SELECT count(*) AS events, count(*) FILTER (WHERE x.ahead) AS ahead,
       coalesce(array_agg(x.lane) FILTER (WHERE x.doubtful), '{}')::smallint[] AS lanes,
       coalesce(array_agg(x.pos) FILTER (WHERE x.doubtful), '{}')::bigint[] AS positions
  FROM (SELECT e.lane, e.pos, a.ahead, (e.id < @low::uuid OR e.id > @high::uuid OR (p.event_id IS NOT NULL) = a.ahead)::boolean AS doubtful
          FROM /*schema*/events e
          LEFT JOIN (SELECT c.lane, c.pos, coalesce(l.to_pos, 9223372036854775807) AS to_pos, coalesce(l.resume_pos, 9223372036854775807) AS resume_pos
                       FROM /*schema*/cursors c LEFT JOIN /*schema*/run_lanes l ON l.run = c.run AND l.lane = c.lane
                      WHERE c.consumer = @consumer) AS k ON k.lane = e.lane
          -- A lane that a run has set back: the rest of the run is ahead, and what is above where it goes on afterwards.
          CROSS JOIN LATERAL (SELECT coalesce(e.pos > k.pos AND e.pos <= k.to_pos OR e.pos > k.resume_pos, false) AS ahead) AS a
          LEFT JOIN LATERAL (SELECT r.id, r.started_at FROM /*schema*/runs r JOIN /*schema*/run_lanes l ON l.run = r.id
                              WHERE r.consumer = @consumer AND l.lane = e.lane AND e.pos > r.from_pos AND e.pos <= l.to_pos
                              ORDER BY r.id DESC LIMIT 1) AS r ON @in_run::boolean
          LEFT JOIN /*schema*/processed_events p
                 ON p.event_id = e.id AND p.consumer = @dedupe::text || coalesce('@' || r.id, '')
                AND p.consumer = ANY (@names::text[]) AND p.event_id >= @low::uuid AND p.event_id <= @high::uuid
         WHERE e.lane = ANY (ARRAY(SELECT generate_series(0, 63)::smallint)) AND e.pos > @from_pos AND e.pos <= @to_pos
           AND (e.type LIKE ANY (@patterns::text[])
                -- Subscriptions that begin within the range, or whose events before that were in a run.
                OR @later::boolean AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                                                WHERE s.consumer = @consumer AND e.type LIKE s.like_pattern
                                                  AND (e.pos > s.from_pos OR s.since <= r.started_at)))) AS x;

-- name: CheckEvents :many
-- Those of the doubtful events that a consumer subscribes to and that are not in exactly one place. A producer may write an event's id twice:
-- until the second is passed over, it is where the first is as well.
SELECT x.pos, x.id, x.type, x.ahead, x.waiting, x.in_flight, x.dead, x.skipped, x.processed, x.dismissed
  FROM (SELECT e.pos, e.id, e.type, e.lane, a.ahead, (w.pos IS NOT NULL)::boolean AS waiting,
               (h.event_id IS NOT NULL AND h.settled_at IS NULL AND h.dead_at IS NULL)::boolean AS in_flight,
               coalesce(d.state = 'dead', false)::boolean AS dead, coalesce(d.skipped, false)::boolean AS skipped,
               ((SELECT true FROM /*schema*/processed_events p
                  WHERE p.consumer = @dedupe::text || coalesce('@' || r.id, '') AND p.event_id = e.id LIMIT 1) IS NOT NULL)::boolean AS processed,
               coalesce(d.state = 'dismissed', false)::boolean AS dismissed
          FROM (SELECT DISTINCT unnest(@lanes::smallint[]) AS lane, unnest(@positions::bigint[]) AS pos) AS n
          JOIN /*schema*/events e ON e.lane = n.lane AND e.pos = n.pos AND e.pos > @from_pos AND e.pos <= @to_pos
          LEFT JOIN (SELECT c.lane, c.pos, coalesce(l.to_pos, 9223372036854775807) AS to_pos, coalesce(l.resume_pos, 9223372036854775807) AS resume_pos
                       FROM /*schema*/cursors c LEFT JOIN /*schema*/run_lanes l ON l.run = c.run AND l.lane = c.lane
                      WHERE c.consumer = @consumer) AS k ON k.lane = e.lane
          CROSS JOIN LATERAL (SELECT coalesce(e.pos > k.pos AND e.pos <= k.to_pos OR e.pos > k.resume_pos, false)::boolean AS ahead) AS a
          LEFT JOIN LATERAL (SELECT r.id, r.started_at FROM /*schema*/runs r JOIN /*schema*/run_lanes l ON l.run = r.id
                              WHERE r.consumer = @consumer AND l.lane = e.lane AND e.pos > r.from_pos AND e.pos <= l.to_pos
                              ORDER BY r.id DESC LIMIT 1) AS r ON @in_run::boolean
          LEFT JOIN /*schema*/waiting w ON w.consumer = @consumer AND w.key = e.key AND w.pos = e.pos
          LEFT JOIN /*schema*/holds h ON h.consumer = @consumer AND h.event_id = e.id
          LEFT JOIN /*schema*/discarded_jobs d ON d.consumer = @consumer AND d.event_id = e.id
         WHERE EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                        WHERE s.consumer = @consumer AND e.type LIKE s.like_pattern AND (e.pos > s.from_pos OR s.since <= r.started_at))) AS x
 WHERE x.ahead::integer + x.waiting::integer + x.in_flight::integer + x.dead::integer + x.processed::integer + x.dismissed::integer <> 1
   AND NOT ((x.ahead OR x.waiting) AND (SELECT true FROM /*schema*/events b WHERE b.lane = x.lane AND b.id = x.id AND b.pos < x.pos LIMIT 1) IS NOT NULL)
 ORDER BY x.pos LIMIT @most;

-- name: CheckedList :many
-- What is remembered, the oldest first.
SELECT from_pos, to_pos, fingerprint FROM /*schema*/checked ORDER BY checked_at, from_pos;

-- name: CheckedPut :exec
INSERT INTO /*schema*/checked (from_pos, to_pos, fingerprint) VALUES (@from_pos, @to_pos, @fingerprint)
ON CONFLICT (from_pos) DO UPDATE SET to_pos = excluded.to_pos, fingerprint = excluded.fingerprint, checked_at = clock_timestamp();

-- name: CheckedForget :exec
DELETE FROM /*schema*/checked WHERE from_pos = ANY (@from_positions::bigint[]);
