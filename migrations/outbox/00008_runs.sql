-- +goose Up

-- The name under which a consumer's rows stand in processed_events; null: its own. It stays when the consumer is renamed, and
-- is another one when a name is used again: what its predecessor has processed is not what it has processed.
ALTER TABLE consumers ADD COLUMN dedupe text;

-- A renamed consumer keeps what is its own.
ALTER TABLE consumer_subscriptions DROP CONSTRAINT consumer_subscriptions_consumer_fkey,
    ADD CONSTRAINT consumer_subscriptions_consumer_fkey FOREIGN KEY (consumer) REFERENCES consumers (name) ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE cursors DROP CONSTRAINT cursors_consumer_fkey,
    ADD CONSTRAINT cursors_consumer_fkey FOREIGN KEY (consumer) REFERENCES consumers (name) ON DELETE CASCADE ON UPDATE CASCADE;

-- Names that were given up, or given away: a process of an older build must not register them again as if they were new.
CREATE TABLE retired_consumers (
    name      text PRIMARY KEY,
    successor text, -- who it was renamed to; null: it was removed
    at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Backfills: a consumer runs again over a range of the log, lane by lane, with its cursors set back. What it does then is
-- deduplicated under a name of its own, <consumer>@<run>.
CREATE TABLE runs (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer   text NOT NULL REFERENCES consumers (name) ON DELETE CASCADE ON UPDATE CASCADE,
    -- Above from_pos, up to to_pos.
    from_pos   bigint NOT NULL,
    to_pos     bigint NOT NULL,
    -- How many events of it the consumer subscribes to.
    events     bigint NOT NULL,
    -- Whether events that handlers append in it are written.
    appends    boolean NOT NULL,
    actor      text NOT NULL,
    reason     text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    stopped_at timestamptz,
    ended_at   timestamptz,
    CHECK (from_pos < to_pos)
);
CREATE INDEX runs_consumer_idx ON runs (consumer, id);

-- The lanes of a run: its events are those above runs.from_pos and up to to_pos; when the cursor is there, it goes back to where
-- it was set back from.
CREATE TABLE run_lanes (
    run        bigint NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    lane       smallint NOT NULL CHECK (lane BETWEEN 0 AND 63),
    to_pos     bigint NOT NULL,
    resume_pos bigint NOT NULL,
    PRIMARY KEY (run, lane)
);

-- The run that a lane, a hold, what waits or a letter belongs to; null: none.
ALTER TABLE cursors ADD COLUMN run bigint;
ALTER TABLE holds ADD COLUMN run bigint;
ALTER TABLE waiting ADD COLUMN run bigint;
ALTER TABLE discarded_jobs ADD COLUMN run bigint,
    -- The state of a letter before a run took its event up again.
    ADD COLUMN before_run text CHECK (before_run IN ('dead', 'replayed', 'dismissed'));

-- +goose StatementBegin
-- The latest run of a consumer that an event belongs to, or null: it decides under which name the event is deduplicated.
CREATE FUNCTION outbox_run(p_consumer text, p_lane smallint, p_pos bigint) RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN (SELECT max(r.id) FROM runs r JOIN run_lanes l ON l.run = r.id
             WHERE r.consumer = p_consumer AND l.lane = p_lane AND p_pos > r.from_pos AND p_pos <= l.to_pos);
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Buries the event of a hold and writes (or reopens) its letter. The hold is marked dead, so that its key stays where it is;
-- for a consumer that skips, it is settled, so that the next drain lets the key go on. Does nothing, and returns
-- false, when the hold is settled, dead already, or waits for another job than the one that ended.
-- Lock order: river_job (the caller's) before holds before discarded_jobs.
CREATE OR REPLACE FUNCTION outbox_bury(p_consumer text, p_event_id uuid, p_job_id bigint, p_cause text) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    h holds;
    skips boolean;
    failures jsonb;
    last_error text;
BEGIN
    SELECT * INTO h FROM holds WHERE consumer = p_consumer AND event_id = p_event_id FOR UPDATE;
    IF NOT FOUND OR h.settled_at IS NOT NULL OR h.dead_at IS NOT NULL OR h.job_id IS DISTINCT FROM p_job_id THEN
        RETURN false;
    END IF;
    skips := EXISTS (SELECT FROM consumers WHERE name = p_consumer AND on_dead = 'skip');
    UPDATE holds SET changed_at = clock_timestamp(), token = gen_random_uuid(),
           dead_at = CASE WHEN NOT skips THEN clock_timestamp() END,
           settled_at = CASE WHEN skips THEN clock_timestamp() END,
           outcome = CASE WHEN skips THEN 'skipped' END
     WHERE consumer = p_consumer AND event_id = p_event_id;

    INSERT INTO delivery_log (consumer, event_id, attempt, outcome, error)
    VALUES (p_consumer, p_event_id, h.attempts, 'dead', p_cause);

    SELECT jsonb_agg(jsonb_build_object('attempt', l.attempt, 'at', l.at, 'error', l.error) ORDER BY l.id),
           (array_agg(l.error ORDER BY l.id DESC))[1]
      INTO failures, last_error
      FROM delivery_log l
     WHERE l.consumer = p_consumer AND l.event_id = p_event_id
       AND (l.outcome IN ('failed', 'rescued', 'suspect') OR l.outcome = 'dead' AND l.error IS NOT NULL);

    INSERT INTO discarded_jobs (consumer, event_id, type, key, lane, pos, data, correlation_id,
                                attempts, errors, error, state, skipped, job_id, run)
    SELECT p_consumer, e.id, e.type, e.key, e.lane, e.pos, coalesce(x.data, e.data), e.correlation_id,
           h.attempts, coalesce(failures, '[]'), coalesce(last_error, ''), 'dead', skips, p_job_id, h.run
      FROM events e LEFT JOIN event_edits x ON x.consumer = p_consumer AND x.event_id = e.id
     WHERE e.lane = h.lane AND e.pos = h.pos
    ON CONFLICT (consumer, event_id) DO UPDATE
       SET state = 'dead', attempts = excluded.attempts, errors = excluded.errors, error = excluded.error,
           data = excluded.data, job_id = excluded.job_id, skipped = excluded.skipped, run = excluded.run, before_run = NULL,
           discarded_at = clock_timestamp(), changed_at = clock_timestamp();
    RETURN true;
END
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
-- Buries the event of a hold and writes (or reopens) its letter. The hold is marked dead, so that its key stays where it is;
-- for a consumer that skips, it is settled, so that the next drain lets the key go on. Does nothing, and returns
-- false, when the hold is settled, dead already, or waits for another job than the one that ended.
-- Lock order: river_job (the caller's) before holds before discarded_jobs.
CREATE OR REPLACE FUNCTION outbox_bury(p_consumer text, p_event_id uuid, p_job_id bigint, p_cause text) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    h holds;
    skips boolean;
    failures jsonb;
    last_error text;
BEGIN
    SELECT * INTO h FROM holds WHERE consumer = p_consumer AND event_id = p_event_id FOR UPDATE;
    IF NOT FOUND OR h.settled_at IS NOT NULL OR h.dead_at IS NOT NULL OR h.job_id IS DISTINCT FROM p_job_id THEN
        RETURN false;
    END IF;
    skips := EXISTS (SELECT FROM consumers WHERE name = p_consumer AND on_dead = 'skip');
    UPDATE holds SET changed_at = clock_timestamp(), token = gen_random_uuid(),
           dead_at = CASE WHEN NOT skips THEN clock_timestamp() END,
           settled_at = CASE WHEN skips THEN clock_timestamp() END,
           outcome = CASE WHEN skips THEN 'skipped' END
     WHERE consumer = p_consumer AND event_id = p_event_id;

    INSERT INTO delivery_log (consumer, event_id, attempt, outcome, error)
    VALUES (p_consumer, p_event_id, h.attempts, 'dead', p_cause);

    SELECT jsonb_agg(jsonb_build_object('attempt', l.attempt, 'at', l.at, 'error', l.error) ORDER BY l.id),
           (array_agg(l.error ORDER BY l.id DESC))[1]
      INTO failures, last_error
      FROM delivery_log l
     WHERE l.consumer = p_consumer AND l.event_id = p_event_id
       AND (l.outcome IN ('failed', 'rescued', 'suspect') OR l.outcome = 'dead' AND l.error IS NOT NULL);

    INSERT INTO discarded_jobs (consumer, event_id, type, key, lane, pos, data, correlation_id,
                                attempts, errors, error, state, skipped, job_id)
    SELECT p_consumer, e.id, e.type, e.key, e.lane, e.pos, coalesce(x.data, e.data), e.correlation_id,
           h.attempts, coalesce(failures, '[]'), coalesce(last_error, ''), 'dead', skips, p_job_id
      FROM events e LEFT JOIN event_edits x ON x.consumer = p_consumer AND x.event_id = e.id
     WHERE e.lane = h.lane AND e.pos = h.pos
    ON CONFLICT (consumer, event_id) DO UPDATE
       SET state = 'dead', attempts = excluded.attempts, errors = excluded.errors, error = excluded.error,
           data = excluded.data, job_id = excluded.job_id, skipped = excluded.skipped,
           discarded_at = clock_timestamp(), changed_at = clock_timestamp();
    RETURN true;
END
$$;
-- +goose StatementEnd
DROP FUNCTION outbox_run(text, smallint, bigint);
ALTER TABLE discarded_jobs DROP COLUMN before_run, DROP COLUMN run;
ALTER TABLE waiting DROP COLUMN run;
ALTER TABLE holds DROP COLUMN run;
-- A cursor that is set back goes to where it was.
UPDATE cursors k SET pos = l.resume_pos FROM run_lanes l WHERE l.run = k.run AND l.lane = k.lane;
ALTER TABLE cursors DROP COLUMN run;
DROP TABLE run_lanes, runs, retired_consumers;
ALTER TABLE cursors DROP CONSTRAINT cursors_consumer_fkey,
    ADD CONSTRAINT cursors_consumer_fkey FOREIGN KEY (consumer) REFERENCES consumers (name) ON DELETE CASCADE;
ALTER TABLE consumer_subscriptions DROP CONSTRAINT consumer_subscriptions_consumer_fkey,
    ADD CONSTRAINT consumer_subscriptions_consumer_fkey FOREIGN KEY (consumer) REFERENCES consumers (name) ON DELETE CASCADE;
UPDATE processed_events p SET consumer = c.name FROM consumers c WHERE p.consumer = c.dedupe;
ALTER TABLE consumers DROP COLUMN dedupe;
