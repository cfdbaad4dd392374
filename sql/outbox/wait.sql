-- name: WaitStates :many
-- What became of the events that somebody waits for, each at one consumer or, where none is named, at all that subscribe to
-- it. All is found by probes of primary keys, and of the log's index by id. That one has a part in each partition of the log:
-- an event whose place is not known is looked for only above the head at which it was not there, because what appears, appears
-- there. The head is of the same snapshot. (Each LIMIT 1 keeps a probe one: a join, or a plain EXISTS, may be planned as a walk
-- over the table.)
SELECT e.n::integer AS n, (SELECT r.head FROM /*schema*/relay_state r WHERE r.one) AS head, e.lane::smallint AS lane, e.pos::bigint AS pos, e.type::text AS type, coalesce(c.name, '')::text AS consumer,
       -- Under its own name, or in any backfill: one that begins later takes nothing back.
       ((SELECT p.event_id FROM /*schema*/processed_events p WHERE p.consumer = coalesce(c.dedupe, c.name) AND p.event_id = e.event_id LIMIT 1) IS NOT NULL
        OR EXISTS (SELECT FROM /*schema*/runs b
                    WHERE b.consumer = c.name AND e.pos > b.from_pos AND e.pos <= b.to_pos
                      AND (SELECT p.event_id FROM /*schema*/processed_events p
                            WHERE p.consumer = coalesce(c.dedupe, c.name) || '@' || b.id AND p.event_id = e.event_id LIMIT 1) IS NOT NULL))::boolean AS processed,
       coalesce((SELECT CASE WHEN d.state = 'dead' AND d.skipped THEN 'skipped' ELSE d.state END
                   FROM /*schema*/discarded_jobs d WHERE d.consumer = c.name AND d.event_id = e.event_id), '')::text AS letter,
       EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                WHERE s.consumer = c.name AND e.type LIKE s.like_pattern
                  AND (e.pos > s.from_pos
                       OR CASE WHEN EXISTS (SELECT FROM /*schema*/runs b WHERE b.consumer = c.name)
                               THEN /*schema*/outbox_run(c.name, e.lane, e.pos) END IS NOT NULL)) AS subscribes
  FROM (SELECT w.n, w.event_id, w.consumer, coalesce(f.lane, w.lane) AS lane, coalesce(f.pos, w.pos) AS pos, coalesce(f.type, w.type) AS type
          FROM (SELECT generate_subscripts(@event_ids::uuid[], 1) AS n, unnest(@event_ids::uuid[]) AS event_id, unnest(@consumers::text[]) AS consumer,
                       unnest(@lanes::smallint[]) AS lane, unnest(@positions::bigint[]) AS pos, unnest(@types::text[]) AS type,
                       unnest(@above::bigint[]) AS above) AS w
          LEFT JOIN LATERAL (SELECT i.lane, i.pos, i.type FROM /*schema*/events i
                              WHERE w.pos = 0 AND i.id = w.event_id AND i.pos > w.above ORDER BY i.pos LIMIT 1) AS f ON true) AS e
  LEFT JOIN LATERAL (SELECT k.name, k.dedupe FROM /*schema*/consumers k WHERE k.name = e.consumer
                     UNION ALL
                     SELECT k.name, k.dedupe FROM /*schema*/consumers k
                      WHERE e.consumer = '' AND e.pos > 0
                        AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                                     WHERE s.consumer = k.name AND e.type LIKE s.like_pattern
                                       AND (e.pos > s.from_pos
                                            OR CASE WHEN EXISTS (SELECT FROM /*schema*/runs b WHERE b.consumer = k.name)
                                                    THEN /*schema*/outbox_run(k.name, e.lane, e.pos) END IS NOT NULL))) AS c ON true;
