-- +goose Up

-- +goose StatementBegin
-- Buries the event of a hold: marks the hold dead and writes (or reopens) its letter. Does nothing, and returns
-- false, when the hold is settled, dead already, or waits for another job than the one that ended.
-- Lock order: river_job (the caller's) before holds before discarded_jobs.
CREATE FUNCTION outbox_bury(p_consumer text, p_event_id uuid, p_job_id bigint, p_cause text) RETURNS boolean
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

-- +goose StatementBegin
-- However a deliver job ends unfinished (discarded by a worker or a rescuer, cancelled, deleted), its event becomes
-- a dead letter; when somebody retries such a job in River's own tools, the letter becomes a replay.
-- It must never fail the statement of River that fired it: what it misses, the reconciler finds.
-- It waits for no lock for long either: a statement that is cancelled for its time cannot be caught.
CREATE FUNCTION outbox_on_deliver_job() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    v_consumer text := OLD.args ->> 'consumer';
    v_event_id uuid;
    reopened bigint;
BEGIN
    BEGIN
        v_event_id := (OLD.args ->> 'event_id')::uuid;
        IF TG_OP = 'DELETE' THEN
            PERFORM outbox_bury(v_consumer, v_event_id, OLD.id, 'the job was deleted while it was ' || OLD.state);
        ELSIF NEW.state = 'discarded' THEN
            PERFORM outbox_bury(v_consumer, v_event_id, OLD.id, NULL);
        ELSIF NEW.state = 'cancelled' THEN
            -- River records the error of a worker that cancels its own job; an operator's cancel has none.
            PERFORM outbox_bury(v_consumer, v_event_id, OLD.id,
                CASE WHEN NEW.metadata ? 'cancel_attempted_at' THEN 'the job was cancelled' END);
        ELSE
            UPDATE holds SET dead_at = NULL, changed_at = clock_timestamp(), token = gen_random_uuid()
             WHERE consumer = v_consumer AND event_id = v_event_id
               AND job_id = OLD.id AND dead_at IS NOT NULL AND settled_at IS NULL;
            GET DIAGNOSTICS reopened = ROW_COUNT;
            IF reopened > 0 THEN
                UPDATE discarded_jobs SET state = 'replaying', replays = replays + 1, changed_at = clock_timestamp()
                 WHERE consumer = v_consumer AND event_id = v_event_id AND state = 'dead';
            END IF;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'pgoutbox: dead letter of job % left to the reconciler: %', OLD.id, SQLERRM;
    END;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER outbox_deliver_job_ended AFTER UPDATE OF state ON river_job FOR EACH ROW
WHEN (OLD.kind = 'outbox_deliver' AND OLD.state IS DISTINCT FROM NEW.state
      AND (NEW.state IN ('discarded', 'cancelled')
           OR OLD.state IN ('discarded', 'cancelled') AND NEW.state IN ('available', 'pending', 'scheduled', 'retryable', 'running')))
EXECUTE FUNCTION outbox_on_deliver_job();

CREATE TRIGGER outbox_deliver_job_deleted AFTER DELETE ON river_job FOR EACH ROW
WHEN (OLD.kind = 'outbox_deliver' AND OLD.state NOT IN ('completed', 'discarded', 'cancelled'))
EXECUTE FUNCTION outbox_on_deliver_job();

-- +goose Down
DROP TRIGGER outbox_deliver_job_deleted ON river_job;
DROP TRIGGER outbox_deliver_job_ended ON river_job;
DROP FUNCTION outbox_on_deliver_job();
DROP FUNCTION outbox_bury(text, uuid, bigint, text);
