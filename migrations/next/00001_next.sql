-- +goose Up
-- What an additive release does to the tables that are written most, while the build before it runs on.
ALTER TABLE outbox ADD COLUMN next_note text;
ALTER TABLE events ADD COLUMN next_note text;
CREATE TABLE next_notes (event_id uuid PRIMARY KEY, note text NOT NULL);

-- +goose Down
DROP TABLE next_notes;
ALTER TABLE events DROP COLUMN next_note;
ALTER TABLE outbox DROP COLUMN next_note;
