-- +goose Up
-- Dead letters of one cause have one error, but for what differs from event to event: ids, addresses, numbers, what is quoted. Without these,
-- and without all but its first line, it names the cause, and no person. What SMTP, HTTP and PostgreSQL answer with is a cause of its own: a
-- number from 400 to 599, and a SQLSTATE.
-- +goose StatementBegin
CREATE FUNCTION outbox_error_shape(error text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
               left(split_part(error, E'\n', 1), 500),
               '"[^"]*"|''[^'']*''|`[^`]*`|“[^”]*”', '"…"', 'g'),
               '[^\s<>"]+@[^\s<>"]+', '…@…', 'g'),
               '\m[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\M', '<id>', 'g'),
               '\m(0x)?(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{8,}\M', '<hex>', 'g'),
               '(?<![0-9])(?<!SQLSTATE [0-9A-Z]{0,4})(?!\m[45][0-9]{2}\M)[0-9]+', '#', 'g')
$$;
-- +goose StatementEnd

ALTER TABLE discarded_jobs ADD COLUMN fingerprint text NOT NULL GENERATED ALWAYS AS (left(md5(outbox_error_shape(error)), 16)) STORED;
CREATE INDEX discarded_jobs_fingerprint_idx ON discarded_jobs (fingerprint, id);

-- +goose Down
ALTER TABLE discarded_jobs DROP COLUMN fingerprint;
DROP FUNCTION outbox_error_shape(text);
