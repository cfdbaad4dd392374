-- name: RehearsalEvent :one
-- The event of a letter as its consumer would get it, whatever the letter's state; none where the log does not hold it any more.
SELECT e.pos, e.id, e.type, e.key, e.lane, coalesce(x.data, e.data)::jsonb AS data, e.correlation_id, e.causation_id, e.traceparent,
       e.source, e.schema_version, e.occurred_at, coalesce(d.run, 0)::bigint AS run, coalesce(NOT b.appends, false)::boolean AS muted,
       coalesce(c.dedupe, c.name)::text AS dedupe
  FROM /*schema*/discarded_jobs d
  JOIN /*schema*/consumers c ON c.name = d.consumer
  JOIN /*schema*/events e ON e.lane = d.lane AND e.pos = d.pos
  LEFT JOIN /*schema*/event_edits x ON x.consumer = d.consumer AND x.event_id = d.event_id AND x.redacted_at IS NULL
  LEFT JOIN /*schema*/runs b ON b.id = d.run
 WHERE d.id = @id;

-- name: RehearsalProcessed :one
SELECT processed_at FROM /*schema*/processed_events WHERE consumer = @dedupe AND event_id = @event_id;

-- name: RehearsalWrites :many
-- The tables that this transaction has written so far, with what it has done to each, as the server counts for its statistics; what was
-- counted before the transaction and is not reported yet is in it, too. Ours are those of the schema that bear these names, and the
-- partitions of those.
SELECT c.oid::bigint AS relid, n.nspname::text AS schema, c.relname::text AS name, r.relname::text AS root,
       (r.relnamespace = o.relnamespace AND r.relname = ANY (@ours::text[]))::boolean AS ours, (c.relpersistence = 't')::boolean AS temporary,
       has_table_privilege(c.oid, 'SELECT')::boolean AS readable, pg_relation_size(c.oid)::bigint AS bytes,
       ARRAY(SELECT a.attname FROM pg_catalog.pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, n)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
              WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.n)::text[] AS key,
       s.n_tup_ins::bigint AS inserts, s.n_tup_upd::bigint AS updates, s.n_tup_del::bigint AS deletes
  FROM pg_catalog.pg_stat_xact_user_tables s
  JOIN pg_catalog.pg_class c ON c.oid = s.relid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid)
  JOIN /*schema*/relay_state l ON true
  JOIN pg_catalog.pg_class o ON o.oid = l.tableoid
 WHERE s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0
 ORDER BY n.nspname, c.relname;
