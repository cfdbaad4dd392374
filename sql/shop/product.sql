-- name: ProductPage :many
SELECT sku, name, price, currency, (stock - reserved)::integer AS available
  FROM products WHERE sku > @after::text ORDER BY sku LIMIT @most::integer;

-- name: ProductReserve :one
-- Takes the product's row until the transaction ends: call it in the order of the skus, and late. No row: too few.
UPDATE products SET reserved = reserved + @quantity::integer
 WHERE sku = @sku AND stock - reserved >= @quantity::integer
RETURNING name, price, currency;
