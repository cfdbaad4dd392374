-- name: OrderCreate :exec
INSERT INTO orders (id, cart_id, user_id, amount, currency, lines, payment_method, checkout_event_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: OrderOfCart :one
SELECT id FROM orders WHERE cart_id = $1;

-- name: OrderGet :one
SELECT * FROM orders WHERE id = $1 AND user_id = $2;

-- name: OrdersEnded :many
-- Which of the orders are paid for, or will not be.
SELECT id FROM orders WHERE id = ANY (@ids::uuid[]) AND status <> 'processing';

-- name: OrderPage :many
-- Newest first; the next page begins after the last order of this one.
SELECT * FROM orders
 WHERE user_id = @user_id AND (created_at, id) < (@before_created_at, @before_id::uuid)
 ORDER BY created_at DESC, id DESC LIMIT @most::integer;
