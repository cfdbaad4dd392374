-- name: PaymentBegin :execrows
-- The first trace of a charge, committed before the provider is asked for anything.
INSERT INTO payments (order_id, idempotency_key, amount, currency)
SELECT o.id, @idempotency_key, o.amount, o.currency FROM orders o WHERE o.id = @order_id
ON CONFLICT (order_id) DO NOTHING;

-- name: PaymentGet :one
SELECT sqlc.embed(p), o.status AS order_status
  FROM payments p JOIN orders o ON o.id = p.order_id
 WHERE p.order_id = $1;

-- name: PaymentSetIntent :one
-- The first intent stays: it is the only one that is ever confirmed.
UPDATE payments SET intent_id = coalesce(intent_id, @intent_id::text), state = CASE state WHEN 'creating' THEN 'created' ELSE state END,
       changed_at = clock_timestamp()
 WHERE order_id = @order_id
RETURNING intent_id::text;

-- name: PaymentSettle :execrows
UPDATE payments SET state = @state, reason = @reason, changed_at = clock_timestamp()
 WHERE order_id = @order_id AND state IN ('creating', 'created');

-- name: PaymentUnsettled :one
-- How far a payment had come of which nothing here says how it ended: from its first row on the provider may have been asked.
SELECT order_id, state FROM payments WHERE idempotency_key = @event_id AND state IN ('creating', 'created');

-- name: PaymentByIntent :one
SELECT order_id FROM payments WHERE intent_id = @intent_id::text;

-- name: PaymentSettleOrder :one
-- The guard of an order's end: whoever comes second finds it ended.
UPDATE orders SET status = @status, failure_reason = @failure_reason, settled_at = clock_timestamp()
 WHERE id = @order_id AND status = 'processing'
RETURNING user_id, amount, currency, lines;

-- name: PaymentOrderStatus :one
SELECT status FROM orders WHERE id = $1;
