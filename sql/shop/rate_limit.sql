-- name: RateLimitTake :execrows
-- One row: it is let through, and counted. None: it is not, and nothing is written. The WHERE is judged, and the row changed, after whoever
-- holds it has committed, by the time of that moment.
INSERT INTO rate_limits AS r (id, tat) VALUES (@id, clock_timestamp() + make_interval(secs => @step::float8))
ON CONFLICT (id) DO UPDATE SET tat = greatest(r.tat, clock_timestamp()) + make_interval(secs => @step::float8)
 WHERE r.tat <= clock_timestamp() + make_interval(secs => @slack::float8);

-- name: RateLimitWait :one
-- After a RateLimitTake: for how many seconds the next would take nothing. Below 0 there is room.
SELECT (extract(epoch FROM l.tat - clock_timestamp()) - @slack::float8)::float8 AS seconds FROM rate_limits l WHERE l.id = @id;

-- name: RateLimitPurge :execrows
DELETE FROM rate_limits WHERE id IN (
    SELECT l.id FROM rate_limits l WHERE l.tat < clock_timestamp() LIMIT @most::integer FOR UPDATE SKIP LOCKED);
