-- name: RelayLock :exec
-- A statement of its own, before any read: a statement that waits for a lock and reads, reads what was true before it waited.
SELECT pg_advisory_xact_lock((tableoid::bigint - 2147483648)::integer, 0) FROM /*schema*/relay_state;

-- name: RelayStateGet :one
SELECT head, partitioned_to, coalesce(token = @token, false)::boolean AS leads FROM /*schema*/relay_state;

-- name: RelayTurn :one
-- What a relay must know before it moves, asked after its lock. The setting tells the next statements of the pipeline
-- whether they may. The last number that a producer has drawn is read before this transaction has an id of its own, and
-- what is told of running transactions is older than the snapshot that the rows are moved by: see floor.
SELECT s.head, s.partitioned_to, coalesce(s.token = @token, false)::boolean AS leads,
       (set_config('pgoutbox.turn', CASE WHEN s.token = @token AND s.head >= @head::bigint AND s.partitioned_to > s.head + @room::bigint
                                         THEN 'move' ELSE '' END, true) = 'move'
        -- There is one good plan, whatever the table's statistics say of its size, which changes from one moment to the
        -- next: by the index, in order.
        AND set_config('enable_seqscan', 'off', true) <> '' AND set_config('enable_bitmapscan', 'off', true) <> '')::boolean AS may,
       coalesce(pg_sequence_last_value(pg_get_serial_sequence(
           regexp_replace(s.tableoid::regclass::text, 'relay_state$', 'outbox'), 'seq')::regclass), 0)::bigint AS drawn,
       (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint AS running_from,
       pg_postmaster_start_time()::timestamptz AS server_start,
       EXISTS (SELECT FROM /*schema*/holds h WHERE h.settled_at IS NOT NULL) AS settled
  FROM /*schema*/relay_state s;

-- name: RelayOwnID :one
SELECT coalesce(pg_current_xact_id_if_assigned()::text::bigint, 0)::bigint;

-- name: RelayLead :one
-- Takes the lead, and says how high anything downstream has already counted.
UPDATE /*schema*/relay_state SET token = @token, beat_at = clock_timestamp()
RETURNING head,
    (greatest((SELECT coalesce(max(pos), 0) FROM /*schema*/cursors),
             (SELECT coalesce(max(pos), 0) FROM /*schema*/waiting),
             (SELECT coalesce(max(pos), 0) FROM /*schema*/holds),
             (SELECT coalesce(max((SELECT e.pos FROM /*schema*/events e WHERE e.lane = n.lane::smallint ORDER BY e.pos DESC LIMIT 1)), 0)
                FROM generate_series(0, 63) AS n(lane))))::bigint AS highest;

-- name: RelayBeat :one
UPDATE /*schema*/relay_state SET beat_at = clock_timestamp() WHERE token = @token RETURNING head;

-- name: RelayResign :exec
UPDATE /*schema*/relay_state SET token = NULL, beat_at = '-infinity' WHERE token = @token;

-- name: RelayMakePartitions :exec
SELECT /*schema*/outbox_make_event_partitions(@at_least);

-- name: RelayMakeProcessedPartitions :exec
SELECT /*schema*/outbox_make_processed_partitions(@weeks_ahead);

-- name: RelayPeek :one
-- The number comes from a subquery so that the planner does not see it: it would look up how far the index reaches, past
-- all that was deleted and not cleaned away yet, and take milliseconds for it.
SELECT ((SELECT o.seq FROM /*schema*/outbox o WHERE o.seq > (SELECT @above::bigint) ORDER BY o.seq LIMIT 1) IS NOT NULL)::boolean AS outbox,
       EXISTS (SELECT FROM /*schema*/holds WHERE settled_at IS NOT NULL) AS settled,
       EXISTS (SELECT FROM /*schema*/scheduled WHERE not_before <= clock_timestamp()) AS due;

-- name: RelayFirst :one
SELECT coalesce(min(seq), 0)::bigint FROM /*schema*/outbox;

-- name: RelayMove :many
-- The one writer of the log. Numbers and rows move in one statement: no crash can part them. It looks past quarantined
-- keys itself, because a row of theirs may be committed after the statement that would have set it aside.
-- A batch is a range of numbers, which is walked once: where it ends is read from the same snapshot, and told. How many rows it moved does not
-- tell whether there are more: one that somebody deletes at this moment, or whose key is quarantined, is not moved. Rows are written lane by
-- lane, because that is how they are read: a drain finds its events of a batch side by side and not one to a page.
WITH bound AS (
    SELECT (SELECT a.seq FROM /*schema*/outbox a WHERE a.seq > @above::bigint ORDER BY a.seq LIMIT 1 OFFSET @batch - 1) AS seq
), moved AS (
    DELETE FROM /*schema*/outbox o
     WHERE current_setting('pgoutbox.turn', true) = 'move'
       AND o.seq > @above::bigint
       AND o.seq <= coalesce((SELECT b.seq FROM bound b), 9223372036854775807)
       AND (@only_seq::bigint = 0 OR o.seq = @only_seq::bigint)
       AND (NOT @quarantine::boolean OR NOT EXISTS (SELECT FROM /*schema*/quarantine q WHERE q.key = o.key))
    RETURNING *
), state AS (
    UPDATE /*schema*/relay_state SET head = head + (SELECT count(*) FROM moved), beat_at = clock_timestamp()
     WHERE EXISTS (SELECT FROM moved)
    RETURNING head - (SELECT count(*) FROM moved) AS before
), logged AS (
    INSERT INTO /*schema*/events (pos, seq, id, type, key, lane, data, correlation_id, causation_id, traceparent,
                        source, schema_version, occurred_at, not_before)
    SELECT (SELECT before FROM state) + row_number() OVER (ORDER BY m.seq), m.seq, m.id, m.type, m.key, m.lane, m.data,
           m.correlation_id, m.causation_id, m.traceparent, m.source, m.schema_version, m.occurred_at, m.not_before
      FROM moved m ORDER BY m.lane, m.seq
    RETURNING lane, type, pos, seq
)
SELECT lane, type, max(pos)::bigint AS pos, max(seq)::bigint AS seq, count(*) AS events, ((SELECT b.seq FROM bound b) IS NOT NULL)::boolean AS bounded
  FROM logged GROUP BY lane, type;

-- name: RelayQuarantineKeys :execrows
-- The later rows of keys that have a row in quarantine follow it there, so that none overtakes it.
WITH later AS (
    DELETE FROM /*schema*/outbox o
     WHERE current_setting('pgoutbox.turn', true) = 'move'
       AND o.key IN (SELECT q.key FROM /*schema*/quarantine q) RETURNING o.*
)
INSERT INTO /*schema*/quarantine (seq, id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at, not_before, error)
SELECT seq, id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at, not_before,
       'behind an earlier row of its key' FROM later;

-- name: RelayQuarantineRow :one
WITH refused AS (
    DELETE FROM /*schema*/outbox o WHERE o.seq = @seq RETURNING o.*
)
INSERT INTO /*schema*/quarantine (seq, id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at, not_before, error)
SELECT seq, id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at, not_before, @error FROM refused
RETURNING seq, id, correlation_id, coalesce(traceparent, '')::text AS traceparent;

-- name: RelayHasQuarantine :one
SELECT EXISTS (SELECT FROM /*schema*/quarantine);

-- name: LogIsFresh :one
-- Whether the newest event of the log occurred just now: then somebody writes at this moment, and it is no pile of old rows that the relay moves.
SELECT coalesce((SELECT e.occurred_at > clock_timestamp() - interval '1 second' FROM /*schema*/events e WHERE e.pos = s.head), false)::boolean AS fresh
  FROM /*schema*/relay_state s;

-- name: LaneHeads :many
SELECT n.lane::smallint AS lane,
       coalesce((SELECT e.pos FROM /*schema*/events e WHERE e.lane = n.lane::smallint ORDER BY e.pos DESC LIMIT 1), 0)::bigint AS pos
  FROM generate_series(0, 63) AS n(lane);

-- name: LanesBehind :many
-- The lanes whose cursor is below what is known to be ahead of it, and whether a wake-up has lain in their queue for a
-- while: then no process works it, or all are busy, and more of them bring nothing. Each queue is read once and not for each lane:
-- beside an old snapshot it is all the wake-ups there have been since that the index leads to.
WITH behind AS MATERIALIZED (
    SELECT c.consumer, c.lane, c.pos
      FROM (SELECT unnest(@consumers::text[]) AS consumer, unnest(@lanes::smallint[]) AS lane, unnest(@positions::bigint[]) AS pos) AS ready
      JOIN /*schema*/cursors c ON c.consumer = ready.consumer AND c.lane = ready.lane AND c.pos < ready.pos
), waiting AS MATERIALIZED (
    SELECT DISTINCT c.consumer, (j.args ->> 'lane')::smallint AS lane
      FROM (SELECT DISTINCT b.consumer FROM behind b) AS c
     CROSS JOIN LATERAL (SELECT a.args FROM /*schema*/river_job a
                          WHERE a.state = 'available' AND a.queue = 'outbox_' || c.consumer AND a.priority = 1
                            AND a.scheduled_at < now() - interval '2 seconds' AND a.kind || '' = 'outbox_drain' OFFSET 0) AS j
)
SELECT b.consumer, b.lane, EXISTS (SELECT FROM waiting w WHERE w.consumer = b.consumer AND w.lane = b.lane) AS queued, b.pos
  FROM behind b;

-- name: LaneTypes :many
-- The last event of each type in each lane, of those at the end of the log. Per lane and in order, so that it is the log's index
-- that is read, and between two positions that are known beforehand, which leave few partitions over.
SELECT l.lane::smallint AS lane, e.type, max(e.pos)::bigint AS pos
  FROM unnest(@lanes::smallint[]) AS l (lane)
 CROSS JOIN LATERAL (SELECT a.type, a.pos FROM /*schema*/events a
                      WHERE a.lane = l.lane AND a.pos > @above AND a.pos <= @head ORDER BY a.pos LIMIT @most) AS e
 GROUP BY l.lane, e.type;

-- name: EventsTraced :many
-- Of the events between two positions in these lanes those that carry a trace context.
SELECT e.id, e.type, e.correlation_id, e.traceparent, e.occurred_at
  FROM unnest(@lanes::smallint[]) AS l (lane)
 CROSS JOIN LATERAL (SELECT a.id, a.type, a.correlation_id, a.traceparent::text AS traceparent, a.occurred_at FROM /*schema*/events a
                      WHERE a.lane = l.lane AND a.pos > @above AND a.pos <= @head AND a.traceparent IS NOT NULL ORDER BY a.pos LIMIT @most) AS e
 LIMIT @most;

-- name: EventTraceParent :one
SELECT e.traceparent::text AS traceparent FROM /*schema*/events e WHERE e.lane = @lane AND e.pos = @pos AND e.traceparent IS NOT NULL;

-- name: LanesSettled :many
-- Grouped as the index of settled holds is ordered, which is what makes it the one that is read.
SELECT (h.consumer || '')::text AS consumer, h.lane, max(h.settled_at)::timestamptz AS settled_at FROM /*schema*/holds h
 WHERE h.settled_at IS NOT NULL GROUP BY h.lane, h.consumer || '';

-- name: LanesQueued :many
-- The lanes that have a wake-up in their queue which nobody has taken up yet: whoever does will see what there is. Of one that lies there
-- for long it is known otherwise (LanesBehind); only the last ones are asked for, between two bounds of the index, because this is asked
-- with every wake-up.
SELECT DISTINCT (j.args ->> 'consumer')::text AS consumer, (j.args ->> 'lane')::smallint AS lane
  FROM (SELECT unnest(@queues::text[]) AS queue) AS q
 CROSS JOIN LATERAL (SELECT a.args FROM /*schema*/river_job a
                      WHERE a.state = 'available' AND a.queue = q.queue AND a.priority = 1
                        AND a.scheduled_at > now() - interval '10 seconds' AND a.kind || '' = 'outbox_drain' OFFSET 0) AS j;
