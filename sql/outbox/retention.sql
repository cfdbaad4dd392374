-- name: RetentionLock :one
SELECT pg_try_advisory_xact_lock((tableoid::bigint - 2147483648)::integer, 3) AS locked FROM /*schema*/relay_state;

-- name: RetentionFloor :one
-- Raises the floor. In a transaction of its own: what is dropped after it is below what everybody has seen.
SELECT /*schema*/outbox_raise_floor(clock_timestamp() - make_interval(secs => @seconds))::bigint;

-- name: RetireEvents :one
SELECT coalesce(/*schema*/outbox_retire_events(), '')::text;

-- name: RetireProcessed :one
SELECT coalesce(/*schema*/outbox_retire_processed(clock_timestamp() - make_interval(secs => @seconds)), '')::text;

-- name: RetireProcessedDefault :execrows
-- Ids that are not of their time (a webhook's, an id that outlived its week): one by one.
DELETE FROM /*schema*/processed_events_default p
 WHERE p.ctid = ANY (ARRAY(
    SELECT d.ctid FROM /*schema*/processed_events_default d
     WHERE d.processed_at < clock_timestamp() - make_interval(secs => @seconds)
       AND NOT EXISTS (SELECT FROM /*schema*/events e WHERE e.id = d.event_id)
       AND NOT EXISTS (SELECT FROM /*schema*/scheduled s WHERE s.id = d.event_id)
       AND NOT EXISTS (SELECT FROM /*schema*/outbox_unsettled() u WHERE u.event_id = d.event_id) LIMIT @most));

-- name: RetireDeliveryLog :one
-- The history goes with its event. By id, from where the last look ended: it is about the order of time, so where the first is not old
-- enough there is no need to look at more. The log of events is asked for what is old enough alone.
WITH old AS (
    SELECT l.id, l.old, CASE WHEN l.old THEN NOT EXISTS (SELECT FROM /*schema*/events e WHERE e.id = l.event_id) ELSE false END AS gone
      FROM (SELECT d.id, d.event_id, d.at < clock_timestamp() - make_interval(secs => @seconds) AS old
              FROM /*schema*/delivery_log d WHERE d.id > @after ORDER BY d.id
             LIMIT CASE WHEN (SELECT f.at < clock_timestamp() - make_interval(secs => @seconds)
                                FROM /*schema*/delivery_log f WHERE f.id > @after ORDER BY f.id LIMIT 1) THEN @most::bigint ELSE 0 END) AS l
), deleted AS (
    DELETE FROM /*schema*/delivery_log d WHERE d.id IN (SELECT o.id FROM old o WHERE o.gone)
)
SELECT coalesce(max(o.id) FILTER (WHERE o.old), 0)::bigint AS last, count(*) AS looked FROM old o;

-- name: RetireLetters :execrows
-- Letters that are done with, and whose event is gone.
DELETE FROM /*schema*/discarded_jobs d
 WHERE d.ctid = ANY (ARRAY(
    SELECT o.ctid FROM /*schema*/discarded_jobs o
     WHERE o.state IN ('replayed', 'dismissed') AND o.changed_at < clock_timestamp() - make_interval(secs => @seconds)
       AND NOT EXISTS (SELECT FROM /*schema*/events e WHERE e.id = o.event_id) LIMIT @most));

-- name: RetireEdits :execrows
DELETE FROM /*schema*/event_edits x
 WHERE x.edited_at < clock_timestamp() - make_interval(secs => @seconds)
   AND NOT EXISTS (SELECT FROM /*schema*/events e WHERE e.id = x.event_id);
