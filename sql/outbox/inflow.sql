-- name: LogHead :one
SELECT head FROM /*schema*/relay_state;

-- name: ConsumersInflow :many
-- How many events that each consumer subscribes to are in a part of the log. By lanes, since that is how the log's index goes.
SELECT c.name, count(*) AS events
  FROM /*schema*/events e
  JOIN /*schema*/consumers c ON EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                                         WHERE s.consumer = c.name AND e.pos > s.from_pos AND e.type LIKE s.like_pattern)
 WHERE e.lane = ANY (ARRAY(SELECT generate_series(0, 63)::smallint)) AND e.pos > @after::bigint AND e.pos <= @upto::bigint
 GROUP BY c.name;
