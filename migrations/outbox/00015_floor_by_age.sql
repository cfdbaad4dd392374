-- +goose Up
-- The same rule. How far all cursors have come, which is a look into the log for each lane of each consumer, is asked only where a
-- partition is old enough: otherwise, which is nearly always, it was for nothing, and took up to 0.7 s.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_raise_floor(p_before timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    r retention;
    p record;
    highest bigint;
    newest timestamptz;
BEGIN
    SELECT * INTO r FROM retention FOR UPDATE;
    FOR p IN SELECT lower_bound::bigint AS low, upper_bound::bigint - 1 AS high FROM outbox_partitions('events')
              WHERE upper_bound::bigint - 1 > r.floor ORDER BY 1
    LOOP
        SELECT e.relayed_at INTO newest FROM events e
         WHERE e.lane = ANY (SELECT generate_series(0, 63)::smallint) AND e.pos = p.high;
        EXIT WHEN newest IS NULL OR newest >= p_before;
        IF highest IS NULL THEN
            -- A statement of its own: consumers and backfills that were begun while we waited are seen.
            -- Where a lane has nothing ahead of it, its cursor is where the lane ended, however long ago.
            SELECT least(s.head, (SELECT min(coalesce((SELECT e.pos - 1 FROM events e WHERE e.lane = k.lane AND e.pos > k.pos ORDER BY e.pos LIMIT 1), s.head))
                                    FROM cursors k))
              INTO highest FROM relay_state s;
        END IF;
        EXIT WHEN p.high > highest;
        r.floor := p.high;
        r.floor_at := newest;
    END LOOP;
    UPDATE retention SET floor = r.floor, floor_at = r.floor_at WHERE floor < r.floor;
    RETURN r.floor;
END
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_raise_floor(p_before timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    r retention;
    p record;
    highest bigint;
    newest timestamptz;
BEGIN
    SELECT * INTO r FROM retention FOR UPDATE;
    -- A statement of its own: consumers and backfills that were begun while we waited are seen.
    -- Where a lane has nothing ahead of it, its cursor is where the lane ended, however long ago.
    SELECT least(s.head, (SELECT min(coalesce((SELECT e.pos - 1 FROM events e WHERE e.lane = k.lane AND e.pos > k.pos ORDER BY e.pos LIMIT 1), s.head))
                            FROM cursors k))
      INTO highest FROM relay_state s;
    FOR p IN SELECT lower_bound::bigint AS low, upper_bound::bigint - 1 AS high FROM outbox_partitions('events')
              WHERE upper_bound::bigint - 1 > r.floor ORDER BY 1
    LOOP
        EXIT WHEN p.high > highest;
        SELECT e.relayed_at INTO newest FROM events e
         WHERE e.lane = ANY (SELECT generate_series(0, 63)::smallint) AND e.pos = p.high;
        EXIT WHEN newest IS NULL OR newest >= p_before;
        r.floor := p.high;
        r.floor_at := newest;
    END LOOP;
    UPDATE retention SET floor = r.floor, floor_at = r.floor_at WHERE floor < r.floor;
    RETURN r.floor;
END
$$;
-- +goose StatementEnd
