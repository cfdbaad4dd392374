-- +goose Up
-- How long events have been ahead of cursors that could take them: what writers are refused by, where that is switched on. The leading
-- relay of a build that knows of it keeps all three together; ahead_at tells what it kept from what an older build has left behind.
ALTER TABLE relay_stats
    ADD COLUMN ahead_since    timestamptz, -- null: nothing is ahead that counts
    ADD COLUMN ahead_consumer text NOT NULL DEFAULT '',
    ADD COLUMN ahead_at       timestamptz NOT NULL DEFAULT '-infinity';

-- What piled up while a consumer was paused has been ahead of it since it was resumed.
ALTER TABLE consumers ADD COLUMN resumed_at timestamptz;

-- +goose Down
ALTER TABLE consumers DROP COLUMN resumed_at;
ALTER TABLE relay_stats DROP COLUMN ahead_at, DROP COLUMN ahead_consumer, DROP COLUMN ahead_since;
