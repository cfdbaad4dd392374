-- +goose Up
-- Each drain asks for the drains of its lane that died. By River's index of states it went through all of its queue's that had run, where an
-- old snapshot kept them from being cleaned away: tens of thousands after ten minutes. By this one it is those of its lane.
CREATE INDEX river_job_outbox_running_idx ON river_job (queue, ((args ->> 'lane')::integer)) WHERE kind = 'outbox_drain' AND state = 'running';

-- +goose Down
DROP INDEX river_job_outbox_running_idx;
