-- +goose Up

-- The engine's plans are made once, perhaps while these tables are new and empty, and an index that leads to all rows of a consumer
-- seems as good then as one that leads to the row. So the consumer stands in one index alone; the others have it as an
-- expression, which is found only by who asks for that (drains, see sql/outbox/drain.sql).
DROP INDEX holds_key_idx, holds_lane_idx, holds_settled_idx;
CREATE INDEX holds_key_idx ON holds (key);
CREATE INDEX holds_lane_idx ON holds (lane, (consumer || ''));
CREATE INDEX holds_settled_idx ON holds (lane, (consumer || ''), pos) WHERE settled_at IS NOT NULL;

-- +goose Down
DROP INDEX holds_key_idx, holds_lane_idx, holds_settled_idx;
CREATE INDEX holds_key_idx ON holds (consumer, key);
CREATE INDEX holds_lane_idx ON holds (consumer, lane);
CREATE INDEX holds_settled_idx ON holds (consumer, lane, pos) WHERE settled_at IS NOT NULL;
