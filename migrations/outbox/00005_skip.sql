-- +goose Up

-- What a consumer does with an event whose attempts are used up: hold its key, or go on without it.
ALTER TABLE consumers ADD COLUMN on_dead text NOT NULL DEFAULT 'hold' CHECK (on_dead IN ('hold', 'skip'));

ALTER TABLE holds DROP CONSTRAINT holds_outcome_check,
    ADD CONSTRAINT holds_outcome_check CHECK (outcome IN ('applied', 'duplicate', 'dismissed', 'skipped'));

-- The letter's key went on without it: whoever replays it now does so out of order.
ALTER TABLE discarded_jobs ADD COLUMN skipped boolean NOT NULL DEFAULT false;

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

-- +goose Down
-- What was skipped stays dead: nothing holds its key any more.
UPDATE holds SET outcome = 'dismissed' WHERE outcome = 'skipped';
ALTER TABLE holds DROP CONSTRAINT holds_outcome_check,
    ADD CONSTRAINT holds_outcome_check CHECK (outcome IN ('applied', 'duplicate', 'dismissed'));
ALTER TABLE discarded_jobs DROP COLUMN skipped;
ALTER TABLE consumers DROP COLUMN on_dead;

-- +goose StatementBegin
-- Buries the event of a hold: marks the hold dead and writes (or reopens) its letter. Does nothing, and returns
-- false, when the hold is settled, dead already, or waits for another job than the one that ended.
-- Lock order: river_job (the caller's) before holds before discarded_jobs.
CREATE OR REPLACE FUNCTION outbox_bury(p_consumer text, p_event_id uuid, p_job_id bigint, p_cause text) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    h holds;
    failures jsonb;
    last_error text;
BEGIN
    SELECT * INTO h FROM holds WHERE consumer = p_consumer AND event_id = p_event_id FOR UPDATE;
    IF NOT FOUND OR h.settled_at IS NOT NULL OR h.dead_at IS NOT NULL OR h.job_id IS DISTINCT FROM p_job_id THEN
        RETURN false;
    END IF;
    UPDATE holds SET dead_at = clock_timestamp(), changed_at = clock_timestamp(), token = gen_random_uuid()
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
                                attempts, errors, error, state, job_id)
    SELECT p_consumer, e.id, e.type, e.key, e.lane, e.pos, coalesce(x.data, e.data), e.correlation_id,
           h.attempts, coalesce(failures, '[]'), coalesce(last_error, ''), 'dead', p_job_id
      FROM events e LEFT JOIN event_edits x ON x.consumer = p_consumer AND x.event_id = e.id
     WHERE e.lane = h.lane AND e.pos = h.pos
    ON CONFLICT (consumer, event_id) DO UPDATE
       SET state = 'dead', attempts = excluded.attempts, errors = excluded.errors, error = excluded.error,
           data = excluded.data, job_id = excluded.job_id,
           discarded_at = clock_timestamp(), changed_at = clock_timestamp();
    RETURN true;
END
$$;
-- +goose StatementEnd
