-- +goose Up

-- +goose StatementBegin
-- A producer has a transaction id before it draws a number. So whoever reads the last number and then draws an id of
-- his own knows: once all older transactions have ended, no row with a number up to that one can still appear.
-- The relay goes by that, and need not look at what it has deleted: see scanFloor.
CREATE FUNCTION outbox_draw_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_current_xact_id();
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER outbox_id_before_number BEFORE INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_draw_id();

-- A drain asks for the held keys of its lane.
CREATE INDEX holds_lane_idx ON holds (consumer, lane);

-- +goose Down
DROP INDEX holds_lane_idx;
DROP TRIGGER outbox_id_before_number ON outbox;
DROP FUNCTION outbox_draw_id();
