-- What the fault harness keeps beside the service's own tables. It may be run again at any time.

CREATE SCHEMA IF NOT EXISTS faults;

-- What a producer wrote, in the transaction of its event.
CREATE TABLE IF NOT EXISTS faults.state (
    event_id uuid NOT NULL,
    key text NOT NULL,
    n bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- A producer that did not learn the outcome of its transaction looks it up by this, in a transaction that writes.
    correlation_id text,
    looked_up boolean NOT NULL DEFAULT false
);
CREATE INDEX IF NOT EXISTS state_correlation_id_idx ON faults.state (correlation_id);

-- Events that retention has dropped, as they were.
CREATE TABLE IF NOT EXISTS faults.retired (
    pos bigint NOT NULL, id uuid NOT NULL, type text NOT NULL, key text NOT NULL, data jsonb NOT NULL,
    correlation_id text NOT NULL, causation_id uuid
);

-- What consumers did. Nothing in it is unique but the order: a second effect is to be found, and not to be refused.
CREATE TABLE IF NOT EXISTS faults.effects (
    seq bigserial PRIMARY KEY,
    consumer text NOT NULL,
    key text NOT NULL,
    event_id uuid NOT NULL,
    n bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    pid integer NOT NULL DEFAULT pg_backend_pid()
);

CREATE INDEX IF NOT EXISTS effects_event_id_idx ON faults.effects (event_id);

CREATE TABLE IF NOT EXISTS faults.switches (
    name text PRIMARY KEY,
    value text NOT NULL
);

-- One number after the other, whoever draws it.
CREATE SEQUENCE IF NOT EXISTS faults.numbers CACHE 1;

-- Writes an event and its state row. The key's lock, which is the one that outbox_append takes, comes before the number, in a
-- statement of its own: so the numbers of a key are in the order of the commits.
CREATE OR REPLACE FUNCTION faults.append(p_type text, p_key text, p_data jsonb, p_correlation_id text DEFAULT NULL)
RETURNS TABLE (event_id uuid, n bigint) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(p_key, 0));
    n := nextval('faults.numbers');
    event_id := outbox_append(p_type, p_key, coalesce(p_data, '{}') || jsonb_build_object('n', n), p_correlation_id);
    INSERT INTO faults.state (event_id, key, n, correlation_id) VALUES (event_id, p_key, n, p_correlation_id);
    RETURN NEXT;
END
$$;
