-- name: StockLock :exec
-- One transaction at a time moves stock: batches lock products in the order of their events, and two of them that
-- meet the same products in different order would deadlock.
SELECT pg_advisory_xact_lock(hashtextextended('pgoutbox shop: stock', 0));

-- name: StockYield :exec
-- Shorter than PostgreSQL's deadlock_timeout: a batch that meets a checkout holding products crosswise gives way, and
-- never the customer's checkout.
SELECT set_config('lock_timeout', '500ms', true);

-- name: StockSell :execrows
UPDATE products SET stock = stock - @quantity::integer, reserved = reserved - @quantity::integer WHERE sku = @sku;

-- name: StockReturn :execrows
UPDATE products SET reserved = reserved - @quantity::integer WHERE sku = @sku;

-- name: StockOrderSettle :execrows
-- The guard of a reservation: it is sold or returned once, and only as the order ended.
UPDATE orders SET stock_state = @stock_state
 WHERE id = @order_id AND stock_state = 'reserved' AND status = @status;
