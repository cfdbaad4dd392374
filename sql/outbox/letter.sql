-- name: LetterList :many
SELECT id, consumer, event_id, type, key, correlation_id, attempts, error, fingerprint, state, skipped, replays, discarded_at, changed_at
  FROM /*schema*/discarded_jobs d
 WHERE d.id < @before_id
   AND /*schema*/outbox_letter_matches(d, @filter)
 ORDER BY d.id DESC LIMIT @most;

-- name: LetterGroups :many
-- Letters by what they died of, the most first: a group is a consumer and the shape of an error, of which the newest letter shows the words.
SELECT g.consumer, g.fingerprint, /*schema*/outbox_error_shape(n.error)::text AS error, g.letters, g.oldest::timestamptz AS oldest,
       g.newest::timestamptz AS newest, g.newest_id::bigint AS newest_id, g.types::text[] AS types
  FROM (SELECT t.consumer, t.fingerprint, sum(t.letters)::bigint AS letters, min(t.oldest) AS oldest, max(t.newest) AS newest,
               max(t.newest_id) AS newest_id, array_agg(t.type ORDER BY t.type) AS types
          FROM (SELECT d.consumer, d.fingerprint, d.type, count(*) AS letters, min(d.discarded_at) AS oldest, max(d.discarded_at) AS newest,
                       max(d.id) AS newest_id
                  FROM /*schema*/discarded_jobs d
                 WHERE /*schema*/outbox_letter_matches(d, @filter)
                 GROUP BY d.consumer, d.fingerprint, d.type) AS t -- first by type, by hashes: sorting the letters took the longest of all
         GROUP BY t.consumer, t.fingerprint
        HAVING (sum(t.letters)::bigint, max(t.newest_id)) < (@before_letters::bigint, @before_id::bigint)
         ORDER BY letters DESC, newest_id DESC LIMIT @most) AS g
  JOIN /*schema*/discarded_jobs n ON n.id = g.newest_id
 ORDER BY g.letters DESC, g.newest_id DESC;

-- name: LetterGet :one
SELECT d.id, d.consumer, d.event_id, d.type, d.key, d.lane, d.pos, d.data, d.correlation_id, d.attempts, d.errors, d.error, d.fingerprint, d.state,
       d.skipped, d.job_id, coalesce(d.run, 0)::bigint AS run, d.replays, d.discarded_at, d.changed_at,
       (SELECT count(*) FROM /*schema*/waiting w WHERE w.consumer = d.consumer AND w.key = d.key) AS waiting_count
  FROM /*schema*/discarded_jobs d WHERE d.id = @id;

-- name: LetterWaiting :many
SELECT w.event_id, e.type, w.pos, e.occurred_at, w.since FROM /*schema*/waiting w JOIN /*schema*/events e ON e.lane = w.lane AND e.pos = w.pos
 WHERE w.consumer = @consumer AND w.key = @key ORDER BY w.pos LIMIT @most;

-- name: LetterLock :one
SELECT id, state, skipped FROM /*schema*/discarded_jobs WHERE consumer = @consumer AND event_id = @event_id FOR UPDATE;

-- name: LetterSetState :exec
UPDATE /*schema*/discarded_jobs SET state = @state, job_id = coalesce(sqlc.narg(job_id), job_id),
       replays = replays + (@state::text = 'replaying')::integer, changed_at = clock_timestamp()
 WHERE id = @id;

-- name: HoldLockDead :one
SELECT job_id FROM /*schema*/holds
 WHERE consumer = @consumer AND event_id = @event_id AND settled_at IS NULL AND dead_at IS NOT NULL FOR UPDATE;

-- name: HoldOfKey :one
-- What stands in the way of an event that is to be held again: its own hold, not lifted yet, or, where keys are ordered,
-- another of its key.
SELECT h.event_id FROM /*schema*/holds h JOIN /*schema*/consumers c ON c.name = h.consumer
 WHERE h.consumer = @consumer AND (h.event_id = @event_id OR c.ordered AND h.key = @key) ORDER BY h.pos LIMIT 1;

-- name: EventsAppliedAfter :many
-- The later events of a key that an ordered consumer has processed. There is no index by key: this reads what the lane
-- holds after the position, until it has found enough.
SELECT e.id, e.type, e.pos FROM /*schema*/events e
  JOIN /*schema*/consumers c ON c.name = @consumer AND c.ordered
  JOIN /*schema*/processed_events p ON p.event_id = e.id
   AND p.consumer = coalesce(c.dedupe, c.name) || coalesce('@' || /*schema*/outbox_run(c.name, e.lane, e.pos), '')
 WHERE e.lane = @lane AND e.pos > @pos AND e.key = @key ORDER BY e.pos LIMIT @most;

-- name: EditGet :one
SELECT data, diff, actor, reason, edited_at, redacted_at FROM /*schema*/event_edits WHERE consumer = @consumer AND event_id = @event_id;

-- name: LetterOriginal :one
-- The event of a letter as the log holds it, whatever was edited since.
SELECT e.data, e.schema_version FROM /*schema*/discarded_jobs d JOIN /*schema*/events e ON e.lane = d.lane AND e.pos = d.pos WHERE d.id = @id;

-- name: EditPut :exec
INSERT INTO /*schema*/event_edits (consumer, event_id, data, diff, actor, reason) VALUES (@consumer, @event_id, @data, @diff, @actor, @reason)
ON CONFLICT (consumer, event_id) DO UPDATE
   SET data = excluded.data, diff = excluded.diff, actor = excluded.actor, reason = excluded.reason, edited_at = clock_timestamp(),
       redacted_at = NULL;

-- name: AuditInsert :exec
INSERT INTO /*schema*/audit (actor, action, target, reason, detail) VALUES (@actor, @action, @target, @reason, @detail);

-- name: AuditOpen :one
INSERT INTO /*schema*/audit (actor, action, target, reason, detail) VALUES (@actor, @action, @target, @reason, @detail) RETURNING id;

-- name: AuditAdd :exec
-- What came of it, where that is known only later.
UPDATE /*schema*/audit SET detail = detail || @detail WHERE id = @id;

-- name: AuditJobs :many
-- What is to be known of jobs when River has forgotten them. Of jobs that are not the engine's the arguments are nobody's business.
SELECT j.id, j.kind, j.queue, j.state::text AS state, coalesce(own.args ->> 'consumer', '')::text AS consumer,
       coalesce(own.args ->> 'event_id', '')::text AS event_id, coalesce(own.args ->> 'correlation_id', '')::text AS correlation_id
  FROM /*schema*/river_job j
  CROSS JOIN LATERAL (SELECT CASE WHEN j.kind IN ('outbox_drain', 'outbox_deliver') THEN j.args END AS args) own
 WHERE j.id = ANY (@ids::bigint[]);

-- name: AuditList :many
SELECT id, at, actor, action, target, reason, detail FROM /*schema*/audit a
 WHERE a.id < @before_id
   AND (sqlc.narg(actor)::text IS NULL OR a.actor = sqlc.narg(actor))
   AND (sqlc.narg(action)::text IS NULL OR a.action = sqlc.narg(action))
   AND (sqlc.narg(target)::text IS NULL OR a.target = sqlc.narg(target))
 ORDER BY a.id DESC LIMIT @most;

-- name: JobLive :one
-- The unfinished deliver job of an event, if there is one.
SELECT id FROM /*schema*/river_job
 WHERE kind = 'outbox_deliver' AND state IN ('available', 'pending', 'retryable', 'running', 'scheduled')
   AND args @> jsonb_build_object('consumer', @consumer::text, 'event_id', @event_id::text) LIMIT 1;
