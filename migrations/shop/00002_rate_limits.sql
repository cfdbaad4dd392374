-- +goose Up
-- How much of a rate limit is used up, for each address and account that was seen lately. Unlogged, since it is written before each request
-- that it counts and must not wait for a disk: what a crash or a failover forgets is some minutes of counting. A row whose time has come says
-- the same as no row. The room in a page is for the next version of a row, which no index knows.
CREATE UNLOGGED TABLE rate_limits (
    -- SHA-256 over the limit and what it is of: no address lies here in clear.
    id  bytea PRIMARY KEY CHECK (octet_length(id) = 32),
    -- When all of the limit can be had again: the theoretical arrival time of the generic cell rate algorithm.
    tat timestamptz NOT NULL
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE rate_limits;
