-- name: CheckHeads :one
SELECT head, (SELECT floor FROM /*schema*/retention) AS floor, (SELECT count(*) FROM /*schema*/outbox) AS outbox, (SELECT count(*) FROM /*schema*/quarantine) AS quarantined FROM /*schema*/relay_state;

-- name: CheckEvents :many
-- Every event × subscribed consumer that is not in exactly one place.
SELECT e.pos, e.id, e.type, e.key, c.name AS consumer,
       coalesce(e.pos > k.pos, false)::boolean AS ahead, (w.pos IS NOT NULL)::boolean AS waiting,
       (h.event_id IS NOT NULL AND h.settled_at IS NULL AND h.dead_at IS NULL)::boolean AS in_flight,
       coalesce(d.state = 'dead', false)::boolean AS dead,
       (p.event_id IS NOT NULL)::boolean AS processed,
       coalesce(d.state = 'dismissed', false)::boolean AS dismissed, coalesce(d.skipped, false)::boolean AS skipped
  FROM /*schema*/events e
  CROSS JOIN /*schema*/consumers c
  LEFT JOIN /*schema*/cursors k ON k.consumer = c.name AND k.lane = e.lane
  LEFT JOIN /*schema*/waiting w ON w.consumer = c.name AND w.key = e.key AND w.pos = e.pos
  LEFT JOIN /*schema*/holds h ON h.consumer = c.name AND h.event_id = e.id
  LEFT JOIN /*schema*/discarded_jobs d ON d.consumer = c.name AND d.event_id = e.id
  LEFT JOIN LATERAL (SELECT CASE WHEN EXISTS (SELECT FROM /*schema*/runs b WHERE b.consumer = c.name)
                                 THEN /*schema*/outbox_run(c.name, e.lane, e.pos) END AS run) AS r ON true
  LEFT JOIN /*schema*/processed_events p ON p.consumer = coalesce(c.dedupe, c.name) || coalesce('@' || r.run, '') AND p.event_id = e.id
 WHERE e.pos > @from_pos AND e.pos <= @to_pos
   AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s WHERE s.consumer = c.name AND (e.pos > s.from_pos OR r.run IS NOT NULL) AND e.type LIKE s.like_pattern)
   AND coalesce(e.pos > k.pos, false)::integer + (w.pos IS NOT NULL)::integer
     + (h.event_id IS NOT NULL AND h.settled_at IS NULL AND h.dead_at IS NULL)::integer
     + coalesce(d.state = 'dead', false)::integer + (p.event_id IS NOT NULL)::integer
     + coalesce(d.state = 'dismissed', false)::integer <> 1
 ORDER BY e.pos, c.name LIMIT @most;

-- name: CheckGaps :one
-- Positions are gapless: as many events as the range is wide.
SELECT count(*) FROM /*schema*/events WHERE pos > @from_pos AND pos <= @to_pos;

-- name: CheckFirst :one
SELECT coalesce(min((SELECT e.pos FROM /*schema*/events e WHERE e.lane = n.lane::smallint ORDER BY e.pos LIMIT 1)), 0)::bigint
  FROM generate_series(0, 63) AS n(lane);

-- name: CheckStranded :many
-- Waiting rows that no hold stands before: nothing would ever release them.
SELECT w.consumer, w.key, w.event_id FROM /*schema*/waiting w
 WHERE NOT EXISTS (SELECT FROM /*schema*/holds h WHERE h.consumer = w.consumer AND h.key = w.key)
 ORDER BY w.consumer, w.key, w.pos LIMIT @most;
