-- +goose Up

-- What the log no longer holds: events at or below floor, but for those that something is left to do with. It is raised in a
-- transaction of its own before anything is dropped; who wants to read from the past locks the row and sees it.
CREATE TABLE retention (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    floor    bigint NOT NULL DEFAULT 0,
    -- When the event at the floor was relayed.
    floor_at timestamptz
);
INSERT INTO retention DEFAULT VALUES;

-- +goose StatementBegin
-- The partitions of events or processed_events with their bounds, as the catalog writes them; without the DEFAULT.
CREATE FUNCTION outbox_partitions(p_table regclass) RETURNS TABLE (part regclass, lower_bound text, upper_bound text)
LANGUAGE sql STABLE AS $$
    SELECT i.inhrelid::regclass, b.m[1], b.m[2]
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
           regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''?([^'')]+)''?\) TO \(''?([^'')]+)''?\)') AS b(m)
     WHERE i.inhparent = p_table AND b.m IS NOT NULL
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Raises the floor to the end of the last partition of which every event was relayed before p_before and is behind all
-- cursors. A partition goes as a whole; what is held, waits or is a dead letter is kept from it (outbox_retire_events).
CREATE FUNCTION outbox_raise_floor(p_before timestamptz) RETURNS bigint
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

-- +goose StatementBegin
-- Ids of events that something is left to do with: they are held, wait, or are letters that can be replayed.
CREATE FUNCTION outbox_unsettled() RETURNS TABLE (event_id uuid) LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT h.event_id FROM holds h UNION SELECT w.event_id FROM waiting w
    UNION SELECT d.event_id FROM discarded_jobs d WHERE d.state IN ('dead', 'replaying')
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Puts a table that holds but what is still needed in the place of a partition, or nothing where nothing is; in either case
-- the old one is dropped. The locks are short, and waited for a second: the caller tries again.
CREATE FUNCTION outbox_swap_partition(p_parent regclass, p_part regclass, p_low text, p_high text, p_keep text) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
    kept text := format('%s_%s', p_parent::oid::regclass::text, to_char(clock_timestamp(), 'YYYYMMDDHH24MISSUS'));
    n bigint;
BEGIN
    kept := regexp_replace(kept, '^.*\.', '');
    -- Nobody adds to it while it is copied.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', p_part);
    EXECUTE format('CREATE TABLE %I (LIKE %s INCLUDING ALL)', kept, p_parent);
    EXECUTE format('INSERT INTO %I SELECT * FROM %s AS e WHERE %s', kept, p_part, p_keep);
    GET DIAGNOSTICS n = ROW_COUNT;
    EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', p_parent, p_part);
    EXECUTE format('DROP TABLE %s', p_part);
    IF n = 0 THEN
        EXECUTE format('DROP TABLE %I', kept);
    ELSE
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', p_parent, kept, p_low, p_high);
    END IF;
    RETURN n;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Retires one partition of events below the floor and says which; null when there is none to retire.
CREATE FUNCTION outbox_retire_events() RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    p record;
    gone bigint;
BEGIN
    FOR p IN SELECT part, lower_bound AS low, upper_bound AS high FROM outbox_partitions('events')
              WHERE upper_bound::bigint - 1 <= (SELECT floor FROM retention) ORDER BY lower_bound::bigint
    LOOP
        -- One that was retired before holds little, and is touched again when some of that is settled.
        EXECUTE format('SELECT count(*) FROM (SELECT FROM %s AS e WHERE NOT EXISTS (SELECT FROM outbox_unsettled() u WHERE u.event_id = e.id) LIMIT 1) AS s', p.part)
           INTO gone;
        CONTINUE WHEN gone = 0;
        PERFORM outbox_swap_partition('events', p.part, p.low, p.high, 'EXISTS (SELECT FROM outbox_unsettled() u WHERE u.event_id = e.id)');
        RETURN p.part::text;
    END LOOP;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Retires one partition of processed_events whose ids are of before p_before and of no event above the floor, and says which.
-- Rows of events that are kept stay: a replay must find what was done.
CREATE FUNCTION outbox_retire_processed(p_before timestamptz) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    p record;
    f bigint;
    needed boolean;
    gone bigint;
    keep text;
BEGIN
    SELECT floor INTO f FROM retention;
    FOR p IN SELECT part, lower_bound::uuid AS low, upper_bound::uuid AS high FROM outbox_partitions('processed_events')
              WHERE upper_bound::uuid <= rpad(lpad(to_hex((extract(epoch FROM p_before) * 1000)::bigint), 12, '0'), 32, '0')::uuid
              ORDER BY 2
    LOOP
        SELECT EXISTS (SELECT FROM events v WHERE v.id >= p.low AND v.id < p.high AND v.pos > f)
            OR EXISTS (SELECT FROM outbox v WHERE v.id >= p.low AND v.id < p.high)
            OR EXISTS (SELECT FROM scheduled v WHERE v.id >= p.low AND v.id < p.high)
            OR EXISTS (SELECT FROM quarantine v WHERE v.id >= p.low AND v.id < p.high) INTO needed;
        CONTINUE WHEN needed;
        -- Few: events that were kept, and what is unsettled.
        keep := format('EXISTS (SELECT FROM (SELECT v.id FROM events v WHERE v.id >= %L AND v.id < %L UNION SELECT u.event_id FROM outbox_unsettled() u) AS k WHERE k.id = e.event_id)',
                       p.low, p.high);
        EXECUTE format('SELECT count(*) FROM (SELECT FROM %s AS e WHERE NOT %s LIMIT 1) AS s', p.part, keep) INTO gone;
        IF gone = 0 THEN
            -- Nothing in it is to go; an empty one goes itself.
            EXECUTE format('SELECT count(*) FROM (SELECT FROM %s LIMIT 1) AS s', p.part) INTO gone;
            CONTINUE WHEN gone > 0;
        END IF;
        PERFORM outbox_swap_partition('processed_events', p.part, p.low::text, p.high::text, keep);
        RETURN p.part::text;
    END LOOP;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

DROP FUNCTION outbox_make_processed_partitions(integer);
-- +goose StatementBegin
-- Makes the weekly partitions of processed_events from the week of p_now to weeks_ahead weeks later. Positions of ids
-- in time: the first 48 bits of a UUIDv7 are its milliseconds.
CREATE FUNCTION outbox_make_processed_partitions(weeks_ahead integer, p_now timestamptz DEFAULT clock_timestamp()) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    week timestamptz;
    part text;
    low uuid;
    high uuid;
BEGIN
    FOR week IN SELECT generate_series(
        date_trunc('week', p_now, 'UTC'), date_trunc('week', p_now, 'UTC') + make_interval(weeks => weeks_ahead), interval '1 week')
    LOOP
        part := 'processed_events_w' || to_char(week AT TIME ZONE 'UTC', 'IYYYIW');
        low := rpad(lpad(to_hex((extract(epoch FROM week) * 1000)::bigint), 12, '0'), 32, '0')::uuid;
        high := rpad(lpad(to_hex((extract(epoch FROM week + interval '1 week') * 1000)::bigint), 12, '0'), 32, '0')::uuid;
        CONTINUE WHEN to_regclass(format('%I.%I', current_schema(), part)) IS NOT NULL
                   OR EXISTS (SELECT FROM outbox_partitions('processed_events') WHERE lower_bound::uuid = low);
        BEGIN
            EXECUTE format('CREATE TABLE %I (LIKE processed_events INCLUDING ALL)', part);
            EXECUTE format('ALTER TABLE processed_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, low, high);
        EXCEPTION WHEN check_violation THEN
            -- Ids of that week lie in the DEFAULT partition already (a clock ran ahead): they stay there.
            RAISE WARNING 'pgoutbox: partition % not made: %', part, SQLERRM;
        END;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION outbox_make_processed_partitions(integer, timestamptz);
-- +goose StatementBegin
-- Makes the weekly partitions of processed_events from this week to weeks_ahead weeks from now. Positions of ids
-- in time: the first 48 bits of a UUIDv7 are its milliseconds.
CREATE FUNCTION outbox_make_processed_partitions(weeks_ahead integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    week timestamptz;
    part text;
BEGIN
    FOR week IN SELECT generate_series(
        date_trunc('week', clock_timestamp(), 'UTC'),
        date_trunc('week', clock_timestamp(), 'UTC') + make_interval(weeks => weeks_ahead), interval '1 week')
    LOOP
        part := 'processed_events_w' || to_char(week AT TIME ZONE 'UTC', 'IYYYIW');
        CONTINUE WHEN to_regclass(format('%I.%I', current_schema(), part)) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE %I (LIKE processed_events INCLUDING ALL)', part);
            EXECUTE format('ALTER TABLE processed_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part,
                rpad(lpad(to_hex((extract(epoch FROM week) * 1000)::bigint), 12, '0'), 32, '0')::uuid,
                rpad(lpad(to_hex((extract(epoch FROM week + interval '1 week') * 1000)::bigint), 12, '0'), 32, '0')::uuid);
        EXCEPTION WHEN check_violation THEN
            -- Ids of that week lie in the DEFAULT partition already (a clock ran ahead): they stay there.
            RAISE WARNING 'pgoutbox: partition % not made: %', part, SQLERRM;
        END;
    END LOOP;
END
$$;
-- +goose StatementEnd
DROP FUNCTION outbox_retire_processed(timestamptz);
DROP FUNCTION outbox_retire_events();
DROP FUNCTION outbox_swap_partition(regclass, regclass, text, text, text);
DROP FUNCTION outbox_unsettled();
DROP FUNCTION outbox_raise_floor(timestamptz);
DROP FUNCTION outbox_partitions(regclass);
DROP TABLE retention;
