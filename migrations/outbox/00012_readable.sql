-- +goose Up

-- What nobody can read is refused at the door, like everything else that is refused downstream: a drain that met an event of
-- 'infinity' could not read its lane any more, and the year 10000 is none in JSON. Nor does a number below 1, which a
-- producer can only force, come into the relay's sight. What is there already becomes the nearest that can be read.
UPDATE outbox SET occurred_at = least(greatest(occurred_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00'),
                  not_before = CASE WHEN not_before IS NOT NULL THEN least(greatest(not_before, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00') END
 WHERE NOT (occurred_at >= '0001-01-01 00:00:00+00' AND occurred_at < '10000-01-01 00:00:00+00')
    OR NOT (not_before >= '0001-01-01 00:00:00+00' AND not_before < '10000-01-01 00:00:00+00');
UPDATE outbox SET seq = DEFAULT WHERE seq < 1;
UPDATE scheduled SET scheduled_at = least(greatest(scheduled_at, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00'),
                     not_before = least(greatest(not_before, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00')
 WHERE NOT (scheduled_at >= '0001-01-01 00:00:00+00' AND scheduled_at < '10000-01-01 00:00:00+00')
    OR NOT (not_before >= '0001-01-01 00:00:00+00' AND not_before < '10000-01-01 00:00:00+00');

ALTER TABLE outbox
    ADD CONSTRAINT outbox_seq_check CHECK (seq > 0),
    ADD CONSTRAINT outbox_occurred_at_check CHECK (occurred_at >= '0001-01-01 00:00:00+00' AND occurred_at < '10000-01-01 00:00:00+00'),
    ADD CONSTRAINT outbox_not_before_check CHECK (not_before >= '0001-01-01 00:00:00+00' AND not_before < '10000-01-01 00:00:00+00');
ALTER TABLE scheduled
    ADD CONSTRAINT scheduled_scheduled_at_check CHECK (scheduled_at >= '0001-01-01 00:00:00+00' AND scheduled_at < '10000-01-01 00:00:00+00'),
    ADD CONSTRAINT scheduled_not_before_check CHECK (not_before >= '0001-01-01 00:00:00+00' AND not_before < '10000-01-01 00:00:00+00');

-- Data built level by level may nest deeper than any reader of JSON goes, PostgreSQL's own included: such a row is in no dump that
-- can be restored. 10,000 is the limit of Go's. Short data is not looked at again, because a look takes as long as its text.
-- What is in the outbox already goes its way (NOT VALID); what is scheduled would be refused by the outbox when it is due, and
-- keep the others from it: that is set aside.
WITH deep AS (
    DELETE FROM scheduled WHERE octet_length(data::text) >= 20000 AND data @? 'strict $.**{10000} ? (@.type() == "object" || @.type() == "array")' RETURNING *
)
INSERT INTO quarantine (seq, id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at, not_before, error)
SELECT nextval(pg_get_serial_sequence('outbox', 'seq')), id, type, key, data, correlation_id, causation_id, traceparent, source, schema_version,
       scheduled_at, not_before, 'nested deeper than 10,000' FROM deep;
ALTER TABLE outbox DROP CONSTRAINT outbox_data_check,
    ADD CONSTRAINT outbox_data_check CHECK (CASE WHEN octet_length(data::text) < 20000 THEN true ELSE octet_length(data::text) <= 1048576
        AND NOT data @? 'strict $.**{10000} ? (@.type() == "object" || @.type() == "array")' END) NOT VALID;
ALTER TABLE scheduled DROP CONSTRAINT scheduled_data_check,
    ADD CONSTRAINT scheduled_data_check CHECK (CASE WHEN octet_length(data::text) < 20000 THEN true ELSE octet_length(data::text) <= 1048576
        AND NOT data @? 'strict $.**{10000} ? (@.type() == "object" || @.type() == "array")' END);

-- +goose Down
ALTER TABLE scheduled DROP CONSTRAINT scheduled_data_check, ADD CONSTRAINT scheduled_data_check CHECK (octet_length(data::text) <= 1048576);
ALTER TABLE outbox DROP CONSTRAINT outbox_data_check, ADD CONSTRAINT outbox_data_check CHECK (octet_length(data::text) <= 1048576);
ALTER TABLE scheduled DROP CONSTRAINT scheduled_scheduled_at_check, DROP CONSTRAINT scheduled_not_before_check;
ALTER TABLE outbox DROP CONSTRAINT outbox_seq_check, DROP CONSTRAINT outbox_occurred_at_check, DROP CONSTRAINT outbox_not_before_check;
