-- +goose Up

-- Events that are not due. When one is, the relay gives it a number in the outbox, under its key's lock: its order counts from
-- there. The CHECKs are those of the outbox.
CREATE TABLE scheduled (
    id             uuid PRIMARY KEY,
    type           text NOT NULL CHECK (type ~ '^[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*$' AND octet_length(type) <= 127),
    key            text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
    data           jsonb NOT NULL CHECK (octet_length(data::text) <= 1048576),
    correlation_id text NOT NULL CHECK (correlation_id ~ '^[A-Za-z0-9._-]+$' AND octet_length(correlation_id) <= 128),
    causation_id   uuid,
    traceparent    text CHECK (octet_length(traceparent) <= 255),
    source         text NOT NULL DEFAULT '' CHECK (octet_length(source) <= 127),
    schema_version integer NOT NULL DEFAULT 1 CHECK (schema_version BETWEEN 1 AND 32767),
    scheduled_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    not_before     timestamptz NOT NULL
);
CREATE INDEX scheduled_due_idx ON scheduled (not_before, id);
CREATE INDEX scheduled_correlation_id_idx ON scheduled (correlation_id);

-- An event that is not due but has its place already: what comes later of its key waits for it.
ALTER TABLE outbox ADD COLUMN not_before timestamptz;
ALTER TABLE events ADD COLUMN not_before timestamptz;
ALTER TABLE quarantine ADD COLUMN not_before timestamptz;
ALTER TABLE holds DROP CONSTRAINT holds_reason_check,
    ADD CONSTRAINT holds_reason_check CHECK (reason IN ('external', 'failed', 'suspect', 'scheduled'));

DROP FUNCTION outbox_append(text, text, jsonb, text, uuid, text);
-- +goose StatementBegin
-- Writes one event into the outbox, in the caller's transaction, from any language. The lock comes before the
-- number is drawn, so that per key the order of numbers is the order of commits. An event that is not due is scheduled.
CREATE FUNCTION outbox_append(
    type text, key text, data jsonb,
    correlation_id text DEFAULT NULL, causation_id uuid DEFAULT NULL, traceparent text DEFAULT NULL,
    not_before timestamptz DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    event_id uuid := outbox_uuid7();
BEGIN
    IF outbox_append.not_before > clock_timestamp() THEN
        INSERT INTO scheduled (id, type, key, data, correlation_id, causation_id, traceparent, source, not_before)
        VALUES (event_id, outbox_append.type, outbox_append.key, outbox_append.data,
                coalesce(outbox_append.correlation_id, event_id::text), outbox_append.causation_id,
                outbox_append.traceparent, 'sql', outbox_append.not_before);
        RETURN event_id;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(outbox_append.key, 0));
    INSERT INTO outbox (id, type, key, data, correlation_id, causation_id, traceparent, source)
    VALUES (event_id, outbox_append.type, outbox_append.key, outbox_append.data,
            coalesce(outbox_append.correlation_id, event_id::text), outbox_append.causation_id,
            outbox_append.traceparent, 'sql');
    RETURN event_id;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION outbox_append(text, text, jsonb, text, uuid, text, timestamptz);
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
-- What is scheduled becomes due: it is not lost.
INSERT INTO outbox (id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at)
SELECT id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, scheduled_at FROM scheduled ORDER BY not_before, id;
DROP TABLE scheduled;
UPDATE holds SET reason = 'suspect' WHERE reason = 'scheduled';
ALTER TABLE holds DROP CONSTRAINT holds_reason_check,
    ADD CONSTRAINT holds_reason_check CHECK (reason IN ('external', 'failed', 'suspect'));
ALTER TABLE quarantine DROP COLUMN not_before;
ALTER TABLE events DROP COLUMN not_before;
ALTER TABLE outbox DROP COLUMN not_before;
