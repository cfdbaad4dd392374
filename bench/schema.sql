-- What all systems write alike. Nothing here is unique by event: an effect that happens twice shall be seen, not refused.
CREATE TABLE effects (
    id       bigserial PRIMARY KEY,
    consumer text NOT NULL,
    key      text NOT NULL,
    n        bigint NOT NULL, -- the how-manieth event of its key, from 0
    event_id uuid NOT NULL
);

-- The dedupe of the systems that bring none; the same columns and key as processed_events.
CREATE TABLE dedupe (
    consumer     text NOT NULL,
    event_id     uuid NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, event_id)
);

-- The state that a producer writes together with its event.
CREATE TABLE users (
    id         uuid PRIMARY KEY,
    email      text NOT NULL UNIQUE,
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The queue of limit/one-statement, and the outbox of write/pg-notify.
CREATE TABLE queue (
    id       bigserial PRIMARY KEY,
    event_id uuid NOT NULL,
    type     text NOT NULL,
    key      text NOT NULL,
    data     jsonb NOT NULL
);
