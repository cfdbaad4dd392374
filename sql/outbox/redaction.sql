-- name: RedactionNames :many
-- A consumer's name and those that it had before. Jobs keep the name that they were made with, and what is logged of a consumer that was
-- removed keeps the name that its letters have no more.
WITH RECURSIVE names AS (
    SELECT unnest(ARRAY[@consumer::text, split_part(@consumer::text, '@removed-', 1)]) AS name
    UNION
    SELECT r.name FROM names n JOIN /*schema*/retired_consumers r ON r.successor = n.name
)
SELECT n.name::text FROM names n;

-- name: RedactionOperations :many
-- The operations that have, or had, this letter. Those that went well are known by the audit alone. None of them takes a step meanwhile; as in a
-- step, the operation comes before the job.
SELECT o.id FROM /*schema*/operations o
 WHERE o.id IN (SELECT l.operation FROM /*schema*/operation_letters l WHERE l.letter = @letter
                UNION SELECT (a.detail ->> 'operation')::bigint FROM /*schema*/audit a WHERE a.target = @target::text AND a.action = 'replay')
 ORDER BY o.id FOR UPDATE;

-- name: RedactionJobs :many
SELECT j.id FROM /*schema*/river_job j
 WHERE j.kind = 'outbox_deliver' AND j.args @> jsonb_build_object('event_id', @event_id::text) AND j.args ->> 'consumer' = ANY (@names::text[])
 ORDER BY j.id FOR UPDATE;

-- name: RedactionHold :one
SELECT settled_at FROM /*schema*/holds WHERE consumer = @consumer AND event_id = @event_id FOR UPDATE;

-- name: RedactionLetter :one
SELECT consumer, state, data FROM /*schema*/discarded_jobs WHERE id = @id FOR UPDATE;

-- name: RedactionEdit :one
SELECT data, diff, redacted_at FROM /*schema*/event_edits WHERE consumer = @consumer AND event_id = @event_id FOR UPDATE;

-- name: RedactionWaits :one
SELECT EXISTS (SELECT FROM /*schema*/waiting w WHERE w.event_id = @event_id AND w.consumer = @consumer);

-- name: RedactLetterData :exec
UPDATE /*schema*/discarded_jobs SET data = @data WHERE id = @id;

-- name: RedactEdit :exec
UPDATE /*schema*/event_edits
   SET data = @data, diff = @diff, redacted_at = CASE WHEN @partial::boolean THEN coalesce(redacted_at, clock_timestamp()) ELSE redacted_at END
 WHERE consumer = @consumer AND event_id = @event_id;

-- name: RedactEditReason :execrows
UPDATE /*schema*/event_edits SET reason = '[redacted]' WHERE consumer = @consumer AND event_id = @event_id AND reason NOT IN ('', '[redacted]');

-- name: RedactNotes :execrows
-- What operators did stands in the delivery log, too, as "by anna: why". Who it was stays; the audit tells where that ends. (A note that the
-- audit does not know goes whole.)
UPDATE /*schema*/delivery_log l
   SET error = coalesce((SELECT 'by ' || a.actor || ': [redacted]' FROM /*schema*/audit a
                          WHERE a.target = @target::text AND 'by ' || a.actor || ': ' || a.reason = l.error LIMIT 1), '[redacted]')
 WHERE l.event_id = @event_id AND l.consumer = ANY (@names::text[]) AND l.outcome IN ('replayed', 'dismissed') AND l.error LIKE 'by %: %'
   AND NOT EXISTS (SELECT FROM /*schema*/audit a
                    WHERE a.target = @target::text AND l.error = 'by ' || a.actor || CASE WHEN a.reason = '' THEN '' ELSE ': [redacted]' END);

-- name: RedactReasons :execrows
-- Of the letter, those of earlier redactions too, and of the operations that had it. What stopped a group of theirs is nobody's reason.
UPDATE /*schema*/audit SET reason = '[redacted]'
 WHERE target = ANY (@targets::text[]) AND reason NOT IN ('', '[redacted]') AND NOT (action = 'stop' AND detail ? 'group');

-- name: RedactOperationReasons :execrows
-- Before the audit, which tells who stopped them.
UPDATE /*schema*/operations o
   SET reason = '[redacted]',
       stopped = coalesce((SELECT 'by ' || a.actor || ': [redacted]' FROM /*schema*/audit a
                            WHERE a.target = 'operation ' || o.id AND a.action = 'stop' AND 'by ' || a.actor || ': ' || a.reason = o.stopped LIMIT 1), o.stopped)
 WHERE o.id = ANY (@operations::bigint[])
   AND (o.reason <> '[redacted]'
        OR EXISTS (SELECT FROM /*schema*/audit b WHERE b.target = 'operation ' || o.id AND b.action = 'stop' AND b.reason <> '[redacted]'
                                                   AND 'by ' || b.actor || ': ' || b.reason = o.stopped));

-- name: RedactFilters :execrows
-- An operator who chose letters by a part of their errors typed that.
UPDATE /*schema*/operations SET filter = jsonb_set(filter, '{error}', '"[redacted]"', false)
 WHERE id = ANY (@operations::bigint[]) AND filter ->> 'error' <> '[redacted]';

-- name: RedactFiltersKept :execrows
UPDATE /*schema*/audit SET detail = jsonb_set(detail, '{filter,error}', '"[redacted]"', false)
 WHERE target = ANY (@targets::text[]) AND detail #>> '{filter,error}' <> '[redacted]';

-- name: RedactionShapes :many
-- The shapes of the letter's errors, of which operations keep copies.
SELECT DISTINCT /*schema*/outbox_error_shape(e.error)::text AS shape
  FROM (SELECT l.error FROM /*schema*/delivery_log l
         WHERE l.event_id = @event_id AND l.consumer = ANY (@names::text[]) AND l.outcome NOT IN ('replayed', 'dismissed')
        UNION SELECT d.error FROM /*schema*/discarded_jobs d WHERE d.id = @id
        UNION SELECT x.e ->> 'error' FROM /*schema*/discarded_jobs d CROSS JOIN LATERAL jsonb_array_elements(d.errors) AS x(e) WHERE d.id = @id) AS e
 WHERE e.error NOT IN ('', '[redacted]');

-- name: RedactGroups :execrows
UPDATE /*schema*/operation_groups SET error = '[redacted]' WHERE operation = ANY (@operations::bigint[]) AND error = ANY (@shapes::text[]);

-- name: RedactStops :execrows
-- What stopped a group of an operation.
UPDATE /*schema*/audit SET reason = '[redacted]'
 WHERE target = ANY (@targets::text[]) AND action = 'stop' AND detail ? 'group'
   AND EXISTS (SELECT FROM unnest(@shapes::text[]) AS s(shape) WHERE strpos(reason, s.shape) > 0);

-- name: RedactLog :execrows
UPDATE /*schema*/delivery_log SET error = '[redacted]'
 WHERE event_id = @event_id AND consumer = ANY (@names::text[]) AND outcome NOT IN ('replayed', 'dismissed') AND error NOT IN ('', '[redacted]');

-- name: RedactLetterErrors :execrows
UPDATE /*schema*/discarded_jobs d
   SET fingerprint_kept = d.fingerprint, error = CASE WHEN d.error = '' THEN '' ELSE '[redacted]' END,
       errors = (SELECT coalesce(jsonb_agg(CASE WHEN coalesce(x.e ->> 'error', '') = '' THEN x.e ELSE jsonb_set(x.e, '{error}', '"[redacted]"') END ORDER BY x.n), '[]')
                   FROM jsonb_array_elements(d.errors) WITH ORDINALITY AS x(e, n))
 WHERE d.id = @id
   AND (d.error NOT IN ('', '[redacted]')
        OR EXISTS (SELECT FROM jsonb_array_elements(d.errors) AS y(e) WHERE y.e ->> 'error' NOT IN ('', '[redacted]')));

-- name: RedactJobErrors :execrows
UPDATE /*schema*/river_job j
   SET errors = ARRAY(SELECT jsonb_set(jsonb_set(x.e, '{error}', '"[redacted]"'), '{trace}', '""', false)
                        FROM unnest(j.errors) WITH ORDINALITY AS x(e, n) ORDER BY x.n)
 WHERE j.id = ANY (@ids::bigint[])
   AND EXISTS (SELECT FROM unnest(j.errors) AS y(e) WHERE y.e ->> 'error' IS DISTINCT FROM '[redacted]' OR coalesce(y.e ->> 'trace', '') <> '');
