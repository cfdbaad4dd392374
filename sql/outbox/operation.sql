-- name: OperationInsert :one
INSERT INTO /*schema*/operations (kind, state, actor, reason, filter, rate, canary, force, total)
VALUES ('replay', @state, @actor, @reason, @filter, @rate, @canary, @force, 0) RETURNING id;

-- name: OperationLetters :execrows
-- The letters that the filter lets through and that are dead, as they are now, each in the group of its cause.
INSERT INTO /*schema*/operation_letters (operation, letter, grp, consumer, key, pos)
SELECT @operation, d.id, dense_rank() OVER (ORDER BY d.consumer, d.fingerprint), d.consumer, d.key, d.pos
  FROM /*schema*/discarded_jobs d WHERE d.state = 'dead' AND /*schema*/outbox_letter_matches(d, @filter);

-- name: OperationGroups :exec
INSERT INTO /*schema*/operation_groups (operation, n, consumer, fingerprint, error, letters, ordered, state)
SELECT g.operation, g.grp, g.consumer, d.fingerprint, /*schema*/outbox_error_shape(d.error), g.letters, coalesce(c.ordered, true), @state
  FROM (SELECT l.operation, l.grp, l.consumer, count(*) AS letters, max(l.letter) AS newest FROM /*schema*/operation_letters l
         WHERE l.operation = @operation GROUP BY l.operation, l.grp, l.consumer) AS g
  JOIN /*schema*/discarded_jobs d ON d.id = g.newest
  LEFT JOIN /*schema*/consumers c ON c.name = g.consumer;

-- name: OperationTotal :exec
UPDATE /*schema*/operations SET total = @total WHERE id = @id;

-- name: OperationsOpen :many
SELECT id FROM /*schema*/operations WHERE ended_at IS NULL ORDER BY id LIMIT 100;

-- name: OperationStep :one
-- Takes the operation, unless another process has it. Statements that follow see what was true then.
SELECT id, state, actor, reason, rate, force, (replayed - succeeded - failed_again)::bigint AS in_flight,
       extract(epoch FROM next_at - clock_timestamp())::double precision AS wait
  FROM /*schema*/operations WHERE id = @id AND ended_at IS NULL FOR UPDATE SKIP LOCKED;

-- name: OperationLock :one
SELECT state FROM /*schema*/operations WHERE id = @id FOR UPDATE;

-- name: OperationSettled :many
-- What has become of the letters that it has sent, those first that it was known of first. A letter that is gone went with its consumer, or
-- with the retention of what is settled.
SELECT l.letter, l.grp, coalesce(d.state, 'gone')::text AS state, coalesce(/*schema*/outbox_error_shape(d.error), '')::text AS error
  FROM /*schema*/operation_letters l LEFT JOIN /*schema*/discarded_jobs d ON d.id = l.letter
 WHERE l.operation = @operation AND l.state = 'replaying' AND d.state IS DISTINCT FROM 'replaying'
 ORDER BY d.changed_at, l.letter LIMIT 1000;

-- name: OperationGroupState :one
SELECT state, canary, misses, consumer, fingerprint FROM /*schema*/operation_groups WHERE operation = @operation AND n = @n;

-- name: OperationGroupSet :exec
UPDATE /*schema*/operation_groups SET state = @state, canary = sqlc.narg(canary), misses = @misses, error = coalesce(sqlc.narg(error), error)
 WHERE operation = @operation AND n = @n;

-- name: OperationNext :one
-- The next letter to go: of each group that is open the first that waits for none of its key, which is the order of the key's events; and of
-- these the first. A group whose canary is under way has none.
SELECT p.letter, g.n, (g.state = 'canary')::boolean AS canary
  FROM /*schema*/operation_groups g
 CROSS JOIN LATERAL (
       SELECT l.letter FROM /*schema*/operation_letters l
        WHERE l.operation = g.operation AND l.grp = g.n AND l.state = 'pending'
          AND NOT (g.ordered AND EXISTS (
              SELECT FROM /*schema*/operation_letters b JOIN /*schema*/operation_groups bg ON bg.operation = b.operation AND bg.n = b.grp
               WHERE b.operation = l.operation AND b.consumer = l.consumer AND b.key = l.key AND b.pos < l.pos
                 AND b.state IN ('pending', 'replaying') AND (b.state = 'replaying' OR bg.state <> 'stopped')))
        ORDER BY l.letter LIMIT 1) AS p
 WHERE g.operation = @operation AND (g.state = 'running' OR g.state = 'canary' AND g.canary IS NULL)
 ORDER BY p.letter LIMIT 1;

-- name: OperationLetterSet :exec
UPDATE /*schema*/operation_letters SET state = @state, note = sqlc.narg(note) WHERE operation = @operation AND letter = @letter;

-- name: OperationCount :exec
-- Adds to the counts. One that is late gets no more than half a second's letters at once.
UPDATE /*schema*/operations
   SET replayed = replayed + @replayed, succeeded = succeeded + @succeeded, failed_again = failed_again + @failed_again, skipped = skipped + @skipped,
       next_at = CASE WHEN @replayed::bigint <= 0 THEN next_at
                      ELSE greatest(next_at, clock_timestamp() - interval '0.5 seconds') + make_interval(secs => 1.0 / rate) * @replayed::bigint END,
       state = CASE WHEN state = 'canary' AND EXISTS (SELECT FROM /*schema*/operation_groups g WHERE g.operation = id AND g.state = 'running')
                    THEN 'running' ELSE state END,
       changed_at = clock_timestamp()
 WHERE id = @id;

-- name: OperationStop :exec
UPDATE /*schema*/operations SET state = 'stopped', stopped = @stopped, changed_at = clock_timestamp() WHERE id = @id;

-- name: OperationEnd :one
-- Ends it: stopped where it was, or where groups of it were.
UPDATE /*schema*/operations o
   SET state = CASE WHEN o.state = 'stopped' OR s.groups > 0 THEN 'stopped' ELSE 'done' END,
       stopped = coalesce(o.stopped, CASE WHEN s.groups > 0 THEN format('%s of %s groups failed again', s.groups, s.of) END),
       ended_at = clock_timestamp(), changed_at = clock_timestamp()
  FROM (SELECT count(*) FILTER (WHERE g.state = 'stopped') AS groups, count(*) AS of FROM /*schema*/operation_groups g WHERE g.operation = @id) AS s
 WHERE o.id = @id
RETURNING o.state, o.total, o.succeeded, o.failed_again, o.skipped;

-- name: OperationForget :exec
-- Those that went well are told by the audit.
DELETE FROM /*schema*/operation_letters WHERE operation = @operation AND state = 'succeeded';

-- name: OperationList :many
SELECT id, kind, state, coalesce(stopped, '')::text AS stopped, actor, reason, filter, rate, canary, force, total, replayed, succeeded, failed_again,
       skipped, created_at, changed_at, ended_at
  FROM /*schema*/operations WHERE id < @before_id ORDER BY id DESC LIMIT @most;

-- name: OperationGet :one
SELECT id, kind, state, coalesce(stopped, '')::text AS stopped, actor, reason, filter, rate, canary, force, total, replayed, succeeded, failed_again,
       skipped, created_at, changed_at, ended_at
  FROM /*schema*/operations WHERE id = @id;

-- name: OperationGroupList :many
SELECT consumer, fingerprint, error, letters, state, canary FROM /*schema*/operation_groups WHERE operation = @operation ORDER BY letters DESC, n LIMIT @most;

-- name: OperationTrouble :many
SELECT l.letter, l.state, coalesce(l.note, d.error, '')::text AS note
  FROM /*schema*/operation_letters l LEFT JOIN /*schema*/discarded_jobs d ON d.id = l.letter
 WHERE l.operation = @operation AND l.state IN ('failed', 'skipped') ORDER BY l.letter LIMIT @most;
