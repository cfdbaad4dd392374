-- name: CartHistoryAppend :one
-- Writes the row only when it is the next of its cart, and says which version was the last before it.
WITH last AS (
    SELECT coalesce(max(h.version), 0)::integer AS version FROM cart_history h WHERE h.cart_id = @cart_id
), added AS (
    INSERT INTO cart_history (cart_id, version, event_id, type, line)
    SELECT @cart_id, @version::integer, @event_id, @type, @line FROM last WHERE last.version + 1 = @version::integer
    RETURNING version
)
SELECT last.version AS last_version, EXISTS (SELECT FROM added) AS added FROM last;
