-- +goose Up
-- The same rule. A bounded repetition ({1,128}) took a third of the time of the whole insert: 13 µs against 0.4 µs.
ALTER TABLE outbox DROP CONSTRAINT outbox_correlation_id_check,
    ADD CONSTRAINT outbox_correlation_id_check CHECK (correlation_id ~ '^[A-Za-z0-9._-]+$' AND octet_length(correlation_id) <= 128);

-- +goose Down
ALTER TABLE outbox DROP CONSTRAINT outbox_correlation_id_check,
    ADD CONSTRAINT outbox_correlation_id_check CHECK (correlation_id ~ '^[A-Za-z0-9._-]{1,128}$');
