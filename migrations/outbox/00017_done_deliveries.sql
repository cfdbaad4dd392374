-- +goose Up
-- A delivery that is done deletes its job, and says so: its hold is settled, and there is nothing to bury. Whoever else deletes a job, in the
-- same transaction too, is found out as before. A setting that lies loses nothing either: a hold whose job is gone is found by the reconciler.
CREATE OR REPLACE TRIGGER outbox_deliver_job_deleted AFTER DELETE ON river_job FOR EACH ROW
WHEN (OLD.kind = 'outbox_deliver' AND OLD.state NOT IN ('completed', 'discarded', 'cancelled')
      AND OLD.id::text IS DISTINCT FROM current_setting('pgoutbox.done', true))
EXECUTE FUNCTION outbox_on_deliver_job();

-- +goose Down
CREATE OR REPLACE TRIGGER outbox_deliver_job_deleted AFTER DELETE ON river_job FOR EACH ROW
WHEN (OLD.kind = 'outbox_deliver' AND OLD.state NOT IN ('completed', 'discarded', 'cancelled'))
EXECUTE FUNCTION outbox_on_deliver_job();
