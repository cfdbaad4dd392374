-- +goose Up
-- An event that waited behind another of its key was no clean first try either: the log says since when, and behind which, also when
-- the wait is over. (What is in the log already was held to a shorter list of outcomes.)
ALTER TABLE delivery_log
    ADD COLUMN behind uuid,
    ADD COLUMN since timestamptz,
    DROP CONSTRAINT delivery_log_outcome_check,
    ADD CONSTRAINT delivery_log_outcome_check CHECK (outcome IN
        ('failed', 'applied', 'duplicate', 'rescued', 'suspect', 'dead', 'replayed', 'dismissed', 'fenced', 'waited')) NOT VALID;

-- +goose Down
DELETE FROM delivery_log WHERE outcome = 'waited';
ALTER TABLE delivery_log
    DROP COLUMN behind,
    DROP COLUMN since,
    DROP CONSTRAINT delivery_log_outcome_check,
    ADD CONSTRAINT delivery_log_outcome_check CHECK (outcome IN
        ('failed', 'applied', 'duplicate', 'rescued', 'suspect', 'dead', 'replayed', 'dismissed', 'fenced')) NOT VALID;
