-- +goose Up
-- How many wanted events each cursor has passed, ever. A drain adds its batch in the statement that moves the cursor, so it costs nothing;
-- with what the relay knows of the events that came, it tells how many are ahead, which nobody then has to count.
ALTER TABLE cursors ADD COLUMN passed bigint NOT NULL DEFAULT 0;

-- A run sets passed back with the cursor, by the events of the lane that are run again; and it goes to where it was with it.
ALTER TABLE run_lanes
    ADD COLUMN events bigint NOT NULL DEFAULT 0,
    ADD COLUMN resume_passed bigint; -- null: of a run from before there was such a number

-- What the leading relay last saw, for operators and metrics: reading it costs the same however much there is. Written about once a
-- second while something changes.
CREATE TABLE consumer_stats (
    consumer  text PRIMARY KEY REFERENCES consumers (name) ON DELETE CASCADE ON UPDATE CASCADE,
    -- By lane, what cursors.passed will be when it has passed everything that is wanted up to position head. The next relay that leads
    -- goes on from here.
    head      bigint NOT NULL,
    ready     bigint[] NOT NULL,
    -- The subscriptions that this was counted by, as pattern@from_pos.
    patterns  text[] NOT NULL,
    lag       bigint NOT NULL,
    oldest_at timestamptz, -- when the oldest event ahead of a cursor occurred
    in_flight bigint NOT NULL DEFAULT 0,
    held_keys bigint NOT NULL DEFAULT 0,
    waiting   bigint NOT NULL DEFAULT 0,
    dead      bigint NOT NULL DEFAULT 0,
    -- Letters in state dead, also of events whose keys went on.
    letters   bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE relay_stats (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- When all of this was last known to be true.
    at          timestamptz NOT NULL DEFAULT '-infinity',
    -- Where the relay's looks at the outbox begin: below there are only deleted rows that are not cleaned away yet.
    above       bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    -- [{"queue":"…","state":"…","jobs":1}]
    jobs        jsonb NOT NULL DEFAULT '[]'
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
INSERT INTO relay_stats DEFAULT VALUES;

-- +goose Down
DROP TABLE relay_stats, consumer_stats;
ALTER TABLE run_lanes DROP COLUMN resume_passed, DROP COLUMN events;
ALTER TABLE cursors DROP COLUMN passed;
