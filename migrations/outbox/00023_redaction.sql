-- +goose Up

-- From when on the data of an edit is not all there any more. It no longer stands in for the event then: nobody can work with what is left of
-- it, and whatever delivers the event once more takes what the log holds.
ALTER TABLE event_edits ADD COLUMN redacted_at timestamptz;

-- Letters of one cause stay together, also when it is not to be read any more what that was: fingerprint_kept is that of the error before.
ALTER TABLE discarded_jobs DROP COLUMN fingerprint;
ALTER TABLE discarded_jobs ADD COLUMN fingerprint_kept text;
ALTER TABLE discarded_jobs ADD COLUMN fingerprint text NOT NULL GENERATED ALWAYS AS (
    CASE WHEN error = '[redacted]' AND fingerprint_kept IS NOT NULL THEN fingerprint_kept ELSE left(md5(outbox_error_shape(error)), 16) END) STORED;
CREATE INDEX discarded_jobs_fingerprint_idx ON discarded_jobs (fingerprint, id);

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
      FROM events e LEFT JOIN event_edits x ON x.consumer = p_consumer AND x.event_id = e.id AND x.redacted_at IS NULL
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
ALTER TABLE discarded_jobs DROP COLUMN fingerprint;
ALTER TABLE discarded_jobs DROP COLUMN fingerprint_kept;
ALTER TABLE discarded_jobs ADD COLUMN fingerprint text NOT NULL GENERATED ALWAYS AS (left(md5(outbox_error_shape(error)), 16)) STORED;
CREATE INDEX discarded_jobs_fingerprint_idx ON discarded_jobs (fingerprint, id);
ALTER TABLE event_edits DROP COLUMN redacted_at;
