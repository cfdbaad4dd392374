-- name: StatsConsumers :many
-- The consumers, what they subscribe to, and how far their events were counted: -1 where they were not. Since free_at a consumer can take
-- what is ahead of it: it is registered, resumed, and done with its last backfill.
SELECT c.name, (c.paused_at IS NOT NULL)::boolean AS paused, greatest(c.created_at, c.resumed_at, u.ended)::timestamptz AS free_at,
       ARRAY(SELECT s.pattern FROM /*schema*/consumer_subscriptions s WHERE s.consumer = c.name ORDER BY s.pattern)::text[] AS patterns,
       ARRAY(SELECT s.from_pos FROM /*schema*/consumer_subscriptions s WHERE s.consumer = c.name ORDER BY s.pattern)::bigint[] AS from_pos,
       coalesce(k.head, -1)::bigint AS head, coalesce(k.ready, '{}')::bigint[] AS ready, coalesce(k.patterns, '{}')::text[] AS counted_by
  FROM /*schema*/consumers c
  LEFT JOIN /*schema*/consumer_stats k ON k.consumer = c.name
  LEFT JOIN LATERAL (SELECT greatest(r.ended_at, r.stopped_at) AS ended FROM /*schema*/runs r
                      WHERE r.consumer = c.name ORDER BY r.id DESC LIMIT 1) AS u ON true;

-- name: StatsCursors :many
SELECT k.consumer, k.lane, k.pos, k.passed, coalesce(k.run, 0)::bigint AS run, coalesce(l.to_pos, 0)::bigint AS to_pos,
       coalesce(l.resume_pos, 0)::bigint AS resume_pos
  FROM /*schema*/cursors k LEFT JOIN /*schema*/run_lanes l ON l.run = k.run AND l.lane = k.lane;

-- name: StatsCount :many
-- How many of the events between two positions of a lane a consumer wants. What a run takes up again it wants whenever it subscribed.
SELECT r.n::integer AS n, count(*) AS events
  FROM (SELECT unnest(@numbers::integer[]) AS n, unnest(@consumers::text[]) AS consumer, unnest(@lanes::smallint[]) AS lane, unnest(@lows::bigint[]) AS low,
               unnest(@highs::bigint[]) AS high, unnest(@again::boolean[]) AS again) AS r
 CROSS JOIN LATERAL (SELECT e.pos, e.type FROM /*schema*/events e WHERE e.lane = r.lane AND e.pos > r.low AND e.pos <= r.high OFFSET 0) AS a
 WHERE EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                WHERE s.consumer = r.consumer AND (a.pos > s.from_pos OR r.again) AND a.type LIKE s.like_pattern)
 GROUP BY r.n;

-- name: StatsOldest :many
-- The first event after a position that is wanted. Where none is among the first few, it is the last of those that are returned: the
-- next look goes on from there.
SELECT r.n::integer AS n, f.wanted::boolean AS wanted, f.pos::bigint AS pos, f.occurred_at::timestamptz AS occurred_at,
       f.relayed_at::timestamptz AS relayed_at
  FROM (SELECT unnest(@numbers::integer[]) AS n, unnest(@consumers::text[]) AS consumer, unnest(@lanes::smallint[]) AS lane,
               unnest(@lows::bigint[]) AS low, unnest(@highs::bigint[]) AS high, unnest(@again::boolean[]) AS again) AS r
 CROSS JOIN LATERAL (
    (SELECT true AS wanted, a.pos, a.occurred_at, a.relayed_at
       FROM (SELECT e.pos, e.type, e.occurred_at, e.relayed_at FROM /*schema*/events e
              WHERE e.lane = r.lane AND e.pos > r.low AND e.pos <= r.high ORDER BY e.pos LIMIT @most) AS a
      WHERE EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                     WHERE s.consumer = r.consumer AND (a.pos > s.from_pos OR r.again) AND a.type LIKE s.like_pattern)
      ORDER BY a.pos LIMIT 1)
    UNION ALL
    (SELECT false, e.pos, e.occurred_at, e.relayed_at FROM /*schema*/events e
      WHERE e.lane = r.lane AND e.pos > r.low AND e.pos <= r.high ORDER BY e.pos LIMIT 1 OFFSET @skip)
    LIMIT 1) AS f;

-- name: StatsHolds :many
SELECT h.consumer,
       count(*) FILTER (WHERE h.settled_at IS NULL AND h.dead_at IS NULL) AS in_flight,
       count(DISTINCT h.key) FILTER (WHERE h.reason <> 'external' OR h.dead_at IS NOT NULL) AS held_keys,
       count(*) FILTER (WHERE h.dead_at IS NOT NULL AND h.settled_at IS NULL) AS dead
  FROM /*schema*/holds h GROUP BY h.consumer;

-- name: StatsWaiting :many
SELECT w.consumer, count(*) AS waiting FROM /*schema*/waiting w GROUP BY w.consumer;

-- name: StatsLetters :many
SELECT d.consumer, count(*) AS letters FROM /*schema*/discarded_jobs d WHERE d.state = 'dead' GROUP BY d.consumer;

-- name: StatsJobs :many
SELECT j.queue, j.state::text AS state, count(*) AS jobs FROM /*schema*/river_job j GROUP BY j.queue, j.state;

-- name: StatsQuarantined :one
SELECT count(*) FROM /*schema*/quarantine;

-- name: ConsumerStatsPut :exec
-- Only by the relay that leads. A consumer that has just been removed gets none.
INSERT INTO /*schema*/consumer_stats AS k (consumer, head, ready, patterns, lag, oldest_at, in_flight, held_keys, waiting, dead, letters)
SELECT c.name, @head, @ready::bigint[], @patterns::text[], @lag, sqlc.narg('oldest_at')::timestamptz, @in_flight, @held_keys, @waiting, @dead, @letters
  FROM /*schema*/consumers c, /*schema*/relay_state r WHERE c.name = @consumer AND r.token = @token
ON CONFLICT (consumer) DO UPDATE
   SET head = excluded.head, ready = excluded.ready, patterns = excluded.patterns, lag = excluded.lag, oldest_at = excluded.oldest_at,
       in_flight = excluded.in_flight, held_keys = excluded.held_keys, waiting = excluded.waiting, dead = excluded.dead,
       letters = excluded.letters;

-- name: RelayStatsPut :exec
UPDATE /*schema*/relay_stats
   SET at = clock_timestamp(), above = @above, quarantined = @quarantined, jobs = @jobs, ahead_at = clock_timestamp(),
       ahead_since = sqlc.narg('ahead_since')::timestamptz, ahead_consumer = @ahead_consumer
 WHERE EXISTS (SELECT FROM /*schema*/relay_state r WHERE r.token = @token);

-- name: StatsList :many
-- What is kept of each consumer; counted is false where nothing is yet.
SELECT c.name, (c.paused_at IS NOT NULL)::boolean AS paused, (k.consumer IS NOT NULL)::boolean AS counted, coalesce(k.lag, 0)::bigint AS lag,
       coalesce(extract(epoch FROM clock_timestamp() - k.oldest_at), 0)::double precision AS oldest_seconds,
       coalesce(k.in_flight, 0)::bigint AS in_flight, coalesce(k.held_keys, 0)::bigint AS held_keys, coalesce(k.waiting, 0)::bigint AS waiting,
       coalesce(k.dead, 0)::bigint AS dead, coalesce(k.letters, 0)::bigint AS letters
  FROM /*schema*/consumers c LEFT JOIN /*schema*/consumer_stats k ON k.consumer = c.name ORDER BY c.name;

-- name: StatsRelay :one
-- The outbox is looked at from where the relay's own looks begin, as long as that is known, and no further than some rows: under an
-- old snapshot what lies before is all that was ever relayed. A relay that has resigned has not beaten since for ever.
SELECT s.head, (s.token IS NOT NULL AND s.beat_at > clock_timestamp() - make_interval(secs => @dead_after::float8))::boolean AS leads,
       (k.at > '-infinity')::boolean AS counted,
       (CASE WHEN k.at > '-infinity' THEN extract(epoch FROM clock_timestamp() - k.at) ELSE 0 END)::double precision AS age_seconds,
       k.quarantined, k.jobs, o.events::bigint AS outbox,
       coalesce(extract(epoch FROM clock_timestamp() - o.oldest_at), 0)::double precision AS oldest_seconds
  FROM /*schema*/relay_state s
 CROSS JOIN (SELECT r.at, r.quarantined, r.jobs, CASE WHEN r.at > now() - interval '15 seconds' THEN r.above ELSE 0 END AS above
               FROM /*schema*/relay_stats r) AS k
 CROSS JOIN LATERAL (SELECT count(*) AS events, min(a.occurred_at) AS oldest_at
                       FROM (SELECT b.occurred_at FROM /*schema*/outbox b
                              WHERE b.seq > k.above ORDER BY b.seq LIMIT @most::bigint) AS a) AS o;

-- name: StatsAhead :one
-- For how long the oldest event has been ahead of a cursor that could take it, and the first row of the outbox has not been relayed, which
-- is looked for from where the relay's own looks begin. Of what no relay has kept for a while, nothing is said.
SELECT (CASE WHEN k.ahead_at > clock_timestamp() - make_interval(secs => @stale_after::float8)
             THEN coalesce(extract(epoch FROM clock_timestamp() - k.ahead_since), 0) ELSE 0 END)::double precision AS ahead_seconds,
       k.ahead_consumer AS consumer, coalesce(extract(epoch FROM clock_timestamp() - o.occurred_at), 0)::double precision AS outbox_seconds
  FROM /*schema*/relay_stats k
  LEFT JOIN LATERAL (SELECT a.occurred_at FROM /*schema*/outbox a
                      WHERE a.seq > CASE WHEN k.at > now() - interval '15 seconds' THEN k.above ELSE 0 END
                      ORDER BY a.seq LIMIT 1) AS o ON true;
