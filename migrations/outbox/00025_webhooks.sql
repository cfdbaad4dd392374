-- +goose Up
-- Consumers that are somebody else's HTTP endpoints. Secrets stand here as they are, because every delivery signs with them: who may read this
-- table may sign.
CREATE TABLE webhooks (
    consumer         text PRIMARY KEY REFERENCES consumers (name) ON UPDATE CASCADE ON DELETE CASCADE,
    url              text NOT NULL CHECK (url ~* '^https?://[!-~]+$' AND octet_length(url) <= 2000),
    secret           text NOT NULL CHECK (secret ~ '^whsec_[A-Za-z0-9+/]+=*$'),
    -- Signs along until then, so that a receiver can take its time with the new one.
    old_secret       text CHECK (old_secret ~ '^whsec_[A-Za-z0-9+/]+=*$'),
    old_secret_until timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The first failure since the last success; null: there was none. A delivery that finds nothing to change here writes nothing.
    failing_since    timestamptz,
    -- The last failure, or the success that ended it. No status: there was no answer. The error is one of our own words.
    last_status      smallint CHECK (last_status BETWEEN 100 AND 999),
    last_error       text CHECK (octet_length(last_error) <= 100),
    last_at          timestamptz,
    -- It counts for as long as the consumer is paused since.
    disabled_at      timestamptz,
    disabled_reason  text CHECK (char_length(disabled_reason) <= 1100),
    CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
    CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE webhooks;
