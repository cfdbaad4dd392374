-- name: CartCreate :exec
INSERT INTO carts (id, user_id) VALUES ($1, $2);

-- name: CartLock :one
-- Whoever changes a cart holds its row: versions are given under it, in the order of the commits.
SELECT state FROM carts WHERE id = $1 AND user_id = $2 FOR UPDATE;

-- name: CartView :one
-- A cart as one statement sees it: at today's prices while it is open, and as it was sold once it has an order.
SELECT c.version, c.state, c.created_at, o.id AS order_id,
       coalesce(o.lines, (
           SELECT jsonb_agg(jsonb_build_object('sku', p.sku, 'name', p.name, 'quantity', i.quantity,
                                'unit_price', jsonb_build_object('amount', p.price, 'currency', p.currency))
                            ORDER BY p.sku COLLATE "C")
             FROM cart_items i JOIN products p ON p.sku = i.sku
            WHERE i.cart_id = c.id), '[]')::jsonb AS lines
  FROM carts c LEFT JOIN orders o ON o.cart_id = c.id
 WHERE c.id = $1 AND c.user_id = $2;

-- name: CartItems :many
SELECT sku, quantity FROM cart_items WHERE cart_id = $1 ORDER BY sku COLLATE "C";

-- name: CartItemPlace :one
-- A product, and what the cart holds of it and of others.
SELECT p.name, p.price, p.currency,
       coalesce((SELECT i.quantity FROM cart_items i WHERE i.cart_id = @cart_id AND i.sku = p.sku), 0)::integer AS quantity,
       (SELECT count(*) FROM cart_items i WHERE i.cart_id = @cart_id AND i.sku <> p.sku)::integer AS others
  FROM products p WHERE p.sku = @sku;

-- name: CartItemAdd :exec
INSERT INTO cart_items (cart_id, sku, quantity) VALUES (@cart_id, @sku, @quantity)
ON CONFLICT (cart_id, sku) DO UPDATE SET quantity = cart_items.quantity + excluded.quantity;

-- name: CartItemRemove :one
WITH removed AS (
    DELETE FROM cart_items i WHERE i.cart_id = @cart_id AND i.sku = @sku RETURNING i.sku, i.quantity
)
SELECT removed.quantity, p.name, p.price, p.currency FROM removed JOIN products p ON p.sku = removed.sku;

-- name: CartBump :one
UPDATE carts SET version = version + 1 WHERE id = $1 RETURNING version;

-- name: CartCheckOut :one
UPDATE carts SET version = version + 1, state = 'checked_out' WHERE id = $1 RETURNING version;
