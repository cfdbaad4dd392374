-- +goose Up
-- River gives a job that is to run at once the time of the process that inserts it, and takes it by the database's. Of a process
-- whose clock is ahead, if only by milliseconds, it would be found by no worker that is told of it, and by a later poll only when
-- the database's clock has come so far. While it waits, its lane counts as woken.
-- +goose StatementBegin
CREATE FUNCTION outbox_job_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.scheduled_at := clock_timestamp();
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER outbox_job_due BEFORE INSERT ON river_job FOR EACH ROW
    WHEN (NEW.state = 'available' AND NEW.kind IN ('outbox_relay', 'outbox_drain', 'outbox_deliver') AND NEW.scheduled_at > clock_timestamp())
    EXECUTE FUNCTION outbox_job_due();

-- +goose Down
DROP TRIGGER outbox_job_due ON river_job;
DROP FUNCTION outbox_job_due();
