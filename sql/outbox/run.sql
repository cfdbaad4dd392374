-- name: RunUnderWay :one
SELECT EXISTS (SELECT FROM /*schema*/cursors k WHERE k.consumer = @consumer AND k.run IS NOT NULL);

-- name: RunHeld :one
SELECT h.key, (SELECT count(DISTINCT o.key) FROM /*schema*/holds o WHERE o.consumer = @consumer) AS keys
  FROM /*schema*/holds h WHERE h.consumer = @consumer ORDER BY h.pos LIMIT 1;

-- name: RunInsert :one
INSERT INTO /*schema*/runs (consumer, from_pos, to_pos, events, appends, actor, reason)
VALUES (@consumer, @from_pos, @to_pos, 0, @appends, @actor, @reason) RETURNING id;

-- name: RunLanesInsert :many
-- Each lane goes back to the start of the run, unless its cursor has not come that far.
INSERT INTO /*schema*/run_lanes (run, lane, to_pos, resume_pos, resume_passed)
SELECT @run, k.lane, least(@to_pos::bigint, k.pos), k.pos, k.passed FROM /*schema*/cursors k
 WHERE k.consumer = @consumer AND k.pos > @from_pos::bigint
   AND EXISTS (SELECT FROM /*schema*/events e WHERE e.lane = k.lane AND e.pos > @from_pos AND e.pos <= least(@to_pos::bigint, k.pos))
RETURNING lane;

-- name: RunBegin :exec
UPDATE /*schema*/cursors k SET pos = @from_pos, passed = k.passed - l.events, run = @run, tries = 0, suspect_pos = 0
  FROM /*schema*/run_lanes l
 WHERE k.consumer = @consumer AND l.run = @run AND l.lane = k.lane;

-- name: RunCount :one
-- How many events a run has, and sets it down, by lane too.
WITH counted AS (
    UPDATE /*schema*/run_lanes l SET events = (
        SELECT count(*) FROM /*schema*/events e
         WHERE e.lane = l.lane AND e.pos > r.from_pos AND e.pos <= l.to_pos
           AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s WHERE s.consumer = r.consumer AND e.type LIKE s.like_pattern))
      FROM /*schema*/runs r WHERE r.id = @run AND l.run = r.id
    RETURNING l.events
)
UPDATE /*schema*/runs r SET events = (SELECT coalesce(sum(c.events), 0) FROM counted c)::bigint WHERE r.id = @run RETURNING r.events;

-- name: RunLetters :execrows
-- Letters whose events are run again. While they are, they count as being replayed.
UPDATE /*schema*/discarded_jobs d SET before_run = d.state, state = 'replaying', run = @run, changed_at = clock_timestamp()
 WHERE d.consumer = @consumer AND d.state IN ('dead', 'dismissed') AND d.pos > @from_pos
   AND EXISTS (SELECT FROM /*schema*/run_lanes l WHERE l.run = @run AND l.lane = d.lane AND d.pos <= l.to_pos)
   -- Not those of a subscription that is given up: the run does not come to them.
   AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s WHERE s.consumer = d.consumer AND d.type LIKE s.like_pattern);

-- name: RunGet :one
SELECT r.id, r.consumer, r.from_pos, r.to_pos, r.events, r.appends, r.actor, r.reason, r.started_at, r.stopped_at, r.ended_at,
       EXISTS (SELECT FROM /*schema*/cursors k WHERE k.consumer = r.consumer AND k.run = r.id) AS running,
       (SELECT count(*) FROM /*schema*/run_lanes l
          JOIN /*schema*/cursors k ON k.consumer = r.consumer AND k.lane = l.lane AND k.run = r.id
          JOIN /*schema*/events e ON e.lane = l.lane AND e.pos > k.pos AND e.pos <= l.to_pos
         WHERE l.run = r.id
           AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s WHERE s.consumer = r.consumer AND e.type LIKE s.like_pattern)) AS ahead,
       (SELECT count(*) FROM /*schema*/waiting w WHERE w.consumer = r.consumer AND w.run = r.id) AS waiting,
       (SELECT count(*) FROM /*schema*/holds h WHERE h.consumer = r.consumer AND h.run = r.id AND h.settled_at IS NULL) AS held
  FROM /*schema*/runs r WHERE r.id = @run;

-- name: RunIDs :many
SELECT id FROM /*schema*/runs WHERE consumer = @consumer ORDER BY id DESC LIMIT @most;

-- name: RunStopLanes :exec
-- What the run has not come to is not its own any more.
UPDATE /*schema*/run_lanes l SET to_pos = greatest(k.pos, r.from_pos)
  FROM /*schema*/runs r JOIN /*schema*/cursors k ON k.consumer = r.consumer AND k.run = r.id
 WHERE r.id = @run AND l.run = r.id AND l.lane = k.lane;

-- name: RunStopLetters :exec
UPDATE /*schema*/discarded_jobs d SET state = d.before_run, before_run = NULL, run = NULL, changed_at = clock_timestamp()
 WHERE d.run = @run AND d.state = 'replaying' AND d.before_run IS NOT NULL
   AND NOT EXISTS (SELECT FROM /*schema*/run_lanes l WHERE l.run = d.run AND l.lane = d.lane AND d.pos <= l.to_pos);

-- name: RunStopCursors :exec
UPDATE /*schema*/cursors k SET pos = l.resume_pos, passed = coalesce(l.resume_passed, k.passed), run = NULL, tries = 0
  FROM /*schema*/run_lanes l WHERE l.run = @run::bigint AND k.run = l.run AND k.lane = l.lane;

-- name: RunStop :exec
UPDATE /*schema*/runs SET stopped_at = clock_timestamp() WHERE id = @run AND ended_at IS NULL;

-- name: RunsEnd :many
-- Notes the end of the runs that have no lane left.
UPDATE /*schema*/runs r SET ended_at = clock_timestamp()
 WHERE r.ended_at IS NULL AND r.stopped_at IS NULL
   AND NOT EXISTS (SELECT FROM /*schema*/cursors k WHERE k.consumer = r.consumer AND k.run = r.id)
RETURNING r.id, r.consumer;

-- name: LanesInRun :many
-- Lanes that a run has set back: what the relay knows of their cursors is not true.
SELECT consumer, lane FROM /*schema*/cursors WHERE run IS NOT NULL;
