-- +goose Up
-- What a filter of letters lets through, for every statement that takes one. The planner puts it in place of the call, and leaves out of it
-- what the filter does not name: so it must be one expression, without settings of its own.
-- +goose StatementBegin
CREATE FUNCTION outbox_letter_matches(d discarded_jobs, filter jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT (filter ->> 'consumer' IS NULL OR d.consumer = filter ->> 'consumer')
       AND (filter ->> 'type' IS NULL OR d.type = filter ->> 'type')
       AND (filter ->> 'key' IS NULL OR d.key = filter ->> 'key')
       AND (filter ->> 'correlation_id' IS NULL OR d.correlation_id = filter ->> 'correlation_id')
       AND (filter ->> 'state' IS NULL OR d.state = filter ->> 'state')
       AND (filter ->> 'since' IS NULL OR d.discarded_at >= (filter ->> 'since')::timestamptz)
       AND (filter ->> 'until' IS NULL OR d.discarded_at < (filter ->> 'until')::timestamptz)
       AND (filter ->> 'error' IS NULL OR strpos(lower(d.error), lower(filter ->> 'error')) > 0)
       AND (filter ->> 'fingerprint' IS NULL OR d.fingerprint = filter ->> 'fingerprint')
$$;
-- +goose StatementEnd

-- What an operator has begun that takes a while: the replay of many dead letters. Whoever steps one on holds its row.
CREATE TABLE operations (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('replay')),
    -- canary: only one letter of each group has been tried, or is; running; stopped, by an operator or because groups failed; done.
    state        text NOT NULL CHECK (state IN ('canary', 'running', 'stopped', 'done')),
    -- Why it was stopped.
    stopped      text,
    actor        text NOT NULL,
    reason       text NOT NULL,
    filter       jsonb NOT NULL,
    -- Letters a second, at most.
    rate         integer NOT NULL CHECK (rate BETWEEN 1 AND 1000),
    canary       boolean NOT NULL,
    force        boolean NOT NULL,
    total        bigint NOT NULL,
    replayed     bigint NOT NULL DEFAULT 0,
    succeeded    bigint NOT NULL DEFAULT 0,
    failed_again bigint NOT NULL DEFAULT 0,
    skipped      bigint NOT NULL DEFAULT 0,
    -- When the next letter may go.
    next_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- From then on nothing of it changes: a stopped one waits for what it has sent.
    ended_at     timestamptz
) WITH (fillfactor = 50);
CREATE INDEX operations_open_idx ON operations (id) WHERE ended_at IS NULL;

-- Its letters by cause, of which each proves itself, and fails, alone.
CREATE TABLE operation_groups (
    operation   bigint NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    n           integer NOT NULL,
    consumer    text NOT NULL,
    fingerprint text NOT NULL,
    -- The shape of the error that its letters died of, or, where the group was stopped, of the one that stopped it.
    error       text NOT NULL,
    letters     bigint NOT NULL,
    ordered     boolean NOT NULL,
    state       text NOT NULL CHECK (state IN ('canary', 'running', 'stopped')),
    -- The letter that is tried first, once it is.
    canary      bigint,
    -- Replays that failed since the last that succeeded.
    misses      integer NOT NULL DEFAULT 0,
    PRIMARY KEY (operation, n)
) WITH (fillfactor = 50);

-- The letters that were dead at its beginning. A replay and what is said of it here are one transaction.
CREATE TABLE operation_letters (
    operation bigint NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    letter    bigint NOT NULL,
    grp       integer NOT NULL,
    consumer  text NOT NULL,
    key       text NOT NULL,
    pos       bigint NOT NULL,
    state     text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'replaying', 'succeeded', 'failed', 'skipped')),
    -- Why it was skipped.
    note      text,
    PRIMARY KEY (operation, letter)
) WITH (fillfactor = 80);
CREATE INDEX operation_letters_pending_idx ON operation_letters (operation, grp, letter) WHERE state = 'pending';
CREATE INDEX operation_letters_replaying_idx ON operation_letters (operation, letter) WHERE state = 'replaying';
CREATE INDEX operation_letters_key_idx ON operation_letters (operation, consumer, key, pos) WHERE state IN ('pending', 'replaying');
CREATE INDEX operation_letters_trouble_idx ON operation_letters (operation, letter) WHERE state IN ('failed', 'skipped');

-- What an edit has changed of the event that the log holds.
ALTER TABLE event_edits ADD COLUMN diff jsonb NOT NULL DEFAULT '[]';

-- +goose Down
ALTER TABLE event_edits DROP COLUMN diff;
DROP TABLE operation_letters, operation_groups, operations;
DROP FUNCTION outbox_letter_matches(discarded_jobs, jsonb);
