-- +goose Up

-- The consumers and what they want to hear. Drains filter by these rows and not by the code that
-- happens to run, so that two builds of the code side by side cannot disagree about an event.
CREATE TABLE consumers (
    name       text PRIMARY KEY CHECK (name ~ '^[a-z0-9]+([-_][a-z0-9]+)*$' AND octet_length(name) <= 56),
    -- The first half of the lane's advisory lock; the second half is the lane.
    id         integer NOT NULL UNIQUE GENERATED ALWAYS AS IDENTITY,
    kind       text NOT NULL CHECK (kind IN ('tx', 'external')),
    ordered    boolean NOT NULL DEFAULT true,
    paused_at  timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE consumer_subscriptions (
    consumer     text NOT NULL REFERENCES consumers (name) ON DELETE CASCADE,
    pattern      text NOT NULL CHECK (pattern ~ '^([A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*(\.\*)?|\*)$' AND octet_length(pattern) <= 127),
    -- The pattern as LIKE reads it: user_x.* becomes user\_x.%
    like_pattern text NOT NULL GENERATED ALWAYS AS (replace(replace(pattern, '_', '\_'), '*', '%')) STORED,
    -- Events at or before this position are not this subscription's.
    from_pos     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer, pattern)
);

-- What producers write, in their own transactions; holds only what is not yet relayed. Its CHECKs are at
-- least as strict as everything downstream: what gets in here can be refused by no later table or index.
CREATE TABLE outbox (
    seq            bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    id             uuid NOT NULL,
    type           text NOT NULL CHECK (type ~ '^[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*$' AND octet_length(type) <= 127),
    key            text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
    lane           smallint NOT NULL GENERATED ALWAYS AS ((hashtextextended(key, 0) & 63)::smallint) STORED,
    data           jsonb NOT NULL CHECK (octet_length(data::text) <= 1048576),
    correlation_id text NOT NULL CHECK (correlation_id ~ '^[A-Za-z0-9._-]{1,128}$'),
    causation_id   uuid,
    traceparent    text CHECK (octet_length(traceparent) <= 255),
    source         text NOT NULL DEFAULT '' CHECK (octet_length(source) <= 127),
    schema_version integer NOT NULL DEFAULT 1 CHECK (schema_version BETWEEN 1 AND 32767),
    occurred_at    timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000);

-- The log. One writer (the relay) gives gapless positions in commit order, so a cursor can neither skip nor stall.
CREATE TABLE events (
    pos            bigint NOT NULL,
    seq            bigint NOT NULL,
    id             uuid NOT NULL,
    type           text NOT NULL,
    key            text NOT NULL,
    lane           smallint NOT NULL,
    data           jsonb NOT NULL,
    correlation_id text NOT NULL,
    causation_id   uuid,
    traceparent    text,
    source         text NOT NULL,
    schema_version integer NOT NULL,
    occurred_at    timestamptz NOT NULL,
    relayed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The order in which a drain reads; with the lane known, also the way to one event.
    PRIMARY KEY (lane, pos)
) PARTITION BY RANGE (pos);
CREATE INDEX events_id_idx ON events (id);
CREATE INDEX events_correlation_id_idx ON events (correlation_id);

-- The one row that positions come from. A row is replicated, restored and upgraded with the data; a sequence is not.
CREATE TABLE relay_state (
    one            boolean PRIMARY KEY DEFAULT true CHECK (one),
    head           bigint NOT NULL DEFAULT 0,
    -- Positions below this have a partition of events to go to.
    partitioned_to bigint NOT NULL DEFAULT 0,
    partition_size bigint NOT NULL DEFAULT 1000000 CHECK (partition_size > 0),
    -- Who leads: a relay that finds another token here stops.
    token          uuid,
    beat_at        timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
INSERT INTO relay_state DEFAULT VALUES;

-- Rows that the log refused, and the later rows of their keys: set aside so that the relay can go on.
CREATE TABLE quarantine (
    seq            bigint PRIMARY KEY,
    id             uuid NOT NULL,
    type           text NOT NULL,
    key            text NOT NULL,
    data           jsonb NOT NULL,
    correlation_id text NOT NULL,
    causation_id   uuid,
    traceparent    text,
    source         text NOT NULL,
    schema_version integer NOT NULL,
    occurred_at    timestamptz NOT NULL,
    error          text NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX quarantine_key_idx ON quarantine (key, seq);

-- How far each consumer has read each lane. Written only under the lane's lock.
CREATE TABLE cursors (
    consumer text NOT NULL REFERENCES consumers (name) ON DELETE CASCADE,
    lane     smallint NOT NULL CHECK (lane BETWEEN 0 AND 63),
    pos      bigint NOT NULL,
    -- Batches begun after one whose process died in it: each halves the next, until the cursor is past suspect_pos.
    tries       integer NOT NULL DEFAULT 0,
    suspect_pos bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer, lane)
) WITH (fillfactor = 50);

-- One row per event that was taken out of a lane: nothing of this key goes to this consumer until it is settled.
-- Inserted and deleted only by a drain under the lane's lock; everybody else only marks.
CREATE TABLE holds (
    consumer   text NOT NULL,
    event_id   uuid NOT NULL,
    key        text NOT NULL,
    lane       smallint NOT NULL,
    pos        bigint NOT NULL,
    reason     text NOT NULL CHECK (reason IN ('external', 'failed', 'suspect')),
    -- The fence: redrawn at each attempt, death, replay, dismissal and release.
    token      uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Attempts begun, over all jobs and replays.
    attempts   integer NOT NULL DEFAULT 0,
    -- Rescues of the present job that cost it no attempt.
    rescues    integer NOT NULL DEFAULT 0,
    job_id     bigint,
    since      timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    dead_at    timestamptz,
    settled_at timestamptz,
    outcome    text CHECK (outcome IN ('applied', 'duplicate', 'dismissed')),
    PRIMARY KEY (consumer, event_id),
    CHECK ((settled_at IS NULL) = (outcome IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX holds_key_idx ON holds (consumer, key);
CREATE INDEX holds_settled_idx ON holds (consumer, lane, pos) WHERE settled_at IS NOT NULL;
CREATE INDEX holds_open_idx ON holds (job_id) WHERE settled_at IS NULL AND dead_at IS NULL;

-- What came later of a held key, in order.
CREATE TABLE waiting (
    consumer text NOT NULL,
    key      text NOT NULL,
    pos      bigint NOT NULL,
    event_id uuid NOT NULL,
    lane     smallint NOT NULL,
    since    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, key, pos)
);
CREATE INDEX waiting_event_idx ON waiting (event_id);

-- The dedupe, written in the transaction of the work. By event id (UUIDv7, so by time) so that old ones can be
-- dropped; with a DEFAULT, so that a clock or a queue out of all bounds wedges nobody.
CREATE TABLE processed_events (
    consumer     text NOT NULL,
    event_id     uuid NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, event_id)
) PARTITION BY RANGE (event_id);
CREATE TABLE processed_events_default PARTITION OF processed_events DEFAULT;

-- The dead letters.
CREATE TABLE discarded_jobs (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer       text NOT NULL,
    event_id       uuid NOT NULL,
    type           text NOT NULL,
    key            text NOT NULL,
    lane           smallint NOT NULL,
    pos            bigint NOT NULL,
    data           jsonb NOT NULL,
    correlation_id text NOT NULL,
    attempts       integer NOT NULL,
    -- Every attempt's error, oldest first: [{"attempt":1,"at":"…","error":"…"}]
    errors         jsonb NOT NULL,
    -- The last of them, for lists and filters.
    error          text NOT NULL,
    state          text NOT NULL CHECK (state IN ('dead', 'replaying', 'replayed', 'dismissed')),
    job_id         bigint,
    replays        integer NOT NULL DEFAULT 0,
    discarded_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (consumer, event_id)
);
CREATE INDEX discarded_jobs_state_idx ON discarded_jobs (state, id);
CREATE INDEX discarded_jobs_correlation_id_idx ON discarded_jobs (correlation_id);
CREATE INDEX discarded_jobs_event_idx ON discarded_jobs (event_id);

-- What a timeline must not forget: everything but a clean first try.
CREATE TABLE delivery_log (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    attempt  integer NOT NULL,
    outcome  text NOT NULL CHECK (outcome IN
        ('failed', 'applied', 'duplicate', 'rescued', 'suspect', 'dead', 'replayed', 'dismissed', 'fenced')),
    error    text,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    build    text NOT NULL DEFAULT ''
);
CREATE INDEX delivery_log_event_idx ON delivery_log (event_id, consumer, id);

-- An operator's repair of an event, for one consumer. The log and the other consumers keep the original.
CREATE TABLE event_edits (
    consumer  text NOT NULL,
    event_id  uuid NOT NULL,
    data      jsonb NOT NULL,
    actor     text NOT NULL,
    reason    text NOT NULL,
    edited_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, event_id)
);

-- Who did what to which event or consumer, and why.
CREATE TABLE audit (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor  text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    reason text NOT NULL DEFAULT '',
    detail jsonb NOT NULL DEFAULT '{}'
);

-- +goose StatementBegin
-- A UUIDv7 of the present moment (RFC 9562, 5.7): 48 bits of Unix milliseconds, the rest random.
-- PostgreSQL has none of its own before 18.
CREATE FUNCTION outbox_uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Writes one event into the outbox, in the caller's transaction, from any language. The lock comes before the
-- number is drawn, so that per key the order of numbers is the order of commits.
CREATE FUNCTION outbox_append(
    type text, key text, data jsonb,
    correlation_id text DEFAULT NULL, causation_id uuid DEFAULT NULL, traceparent text DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    event_id uuid := outbox_uuid7();
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(outbox_append.key, 0));
    INSERT INTO outbox (id, type, key, data, correlation_id, causation_id, traceparent, source)
    VALUES (event_id, outbox_append.type, outbox_append.key, outbox_append.data,
            coalesce(outbox_append.correlation_id, event_id::text), outbox_append.causation_id,
            outbox_append.traceparent, 'sql');
    RETURN event_id;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Makes partitions of events until positions below at_least have a home, and says how far they reach.
-- A partition is made on the side and attached: that waits for no reader or writer of the log.
CREATE FUNCTION outbox_make_event_partitions(at_least bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    s relay_state;
    part text;
BEGIN
    SELECT * INTO s FROM relay_state FOR UPDATE;
    WHILE s.partitioned_to < at_least LOOP
        part := format('events_p%s', s.partitioned_to);
        EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING ALL)', part);
        EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                       part, s.partitioned_to, s.partitioned_to + s.partition_size);
        s.partitioned_to := s.partitioned_to + s.partition_size;
        UPDATE relay_state SET partitioned_to = s.partitioned_to;
    END LOOP;
    RETURN s.partitioned_to;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Makes the weekly partitions of processed_events from this week to weeks_ahead weeks from now. Positions of ids
-- in time: the first 48 bits of a UUIDv7 are its milliseconds.
CREATE FUNCTION outbox_make_processed_partitions(weeks_ahead integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    week timestamptz;
    part text;
BEGIN
    FOR week IN SELECT generate_series(
        date_trunc('week', clock_timestamp(), 'UTC'),
        date_trunc('week', clock_timestamp(), 'UTC') + make_interval(weeks => weeks_ahead), interval '1 week')
    LOOP
        part := 'processed_events_w' || to_char(week AT TIME ZONE 'UTC', 'IYYYIW');
        CONTINUE WHEN to_regclass(format('%I.%I', current_schema(), part)) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE %I (LIKE processed_events INCLUDING ALL)', part);
            EXECUTE format('ALTER TABLE processed_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part,
                rpad(lpad(to_hex((extract(epoch FROM week) * 1000)::bigint), 12, '0'), 32, '0')::uuid,
                rpad(lpad(to_hex((extract(epoch FROM week + interval '1 week') * 1000)::bigint), 12, '0'), 32, '0')::uuid);
        EXCEPTION WHEN check_violation THEN
            -- Ids of that week lie in the DEFAULT partition already (a clock ran ahead): they stay there.
            RAISE WARNING 'pgoutbox: partition % not made: %', part, SQLERRM;
        END;
    END LOOP;
END
$$;
-- +goose StatementEnd

SELECT outbox_make_event_partitions(1);
SELECT outbox_make_processed_partitions(8);

-- +goose Down
DROP FUNCTION outbox_make_processed_partitions(integer);
DROP FUNCTION outbox_make_event_partitions(bigint);
DROP FUNCTION outbox_append(text, text, jsonb, text, uuid, text);
DROP FUNCTION outbox_uuid7();
DROP TABLE audit, event_edits, delivery_log, discarded_jobs, processed_events, waiting, holds, cursors, quarantine,
    relay_state, events, outbox, consumer_subscriptions, consumers;
