-- +goose Up

-- Ranges of the log that a check found to be in order and at rest: above from_pos, up to to_pos. An incremental check passes over
-- them for as long as the fingerprint of the consumers and runs that they concern is the same.
CREATE TABLE checked (
    from_pos    bigint PRIMARY KEY,
    to_pos      bigint NOT NULL,
    fingerprint text NOT NULL,
    checked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (from_pos < to_pos)
);

-- When the subscription was made: a run that began before knew nothing of it. What is there already counts as having been there
-- for ever.
ALTER TABLE consumer_subscriptions ADD COLUMN since timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE consumer_subscriptions ALTER COLUMN since SET DEFAULT clock_timestamp();

-- +goose Down
ALTER TABLE consumer_subscriptions DROP COLUMN since;
DROP TABLE checked;
