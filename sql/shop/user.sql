-- name: UserCreate :exec
INSERT INTO users (id, email, name, password_hash, signup_event_id) VALUES ($1, $2, $3, $4, $5);

-- name: UserCredentials :one
SELECT id, password_hash FROM users WHERE lower(email) = lower(@email::text);

-- name: UserRehash :exec
-- Only in place of the hash that the password was compared with.
UPDATE users SET password_hash = @new_hash WHERE id = @id AND password_hash = @old_hash;

-- name: UserLookup :one
-- What an operator can find a user's events by: the newest thousand of them that the tables know, and the keys of the newest thousand carts
-- and orders.
WITH who AS (SELECT u.id, u.signup_event_id, u.created_at FROM users u WHERE u.id = sqlc.narg(id) OR lower(u.email) = lower(sqlc.narg(email)::text)),
     bought AS (SELECT o.id, o.checkout_event_id, o.created_at FROM orders o JOIN who w ON w.id = o.user_id ORDER BY o.created_at DESC LIMIT 1000),
     filled AS (SELECT c.id FROM carts c JOIN who w ON w.id = c.user_id ORDER BY c.created_at DESC LIMIT 1000)
SELECT ARRAY(SELECT f.id FROM (SELECT w.signup_event_id AS id, w.created_at AS at FROM who w
                               UNION ALL SELECT b.checkout_event_id, b.created_at FROM bought b
                               UNION ALL SELECT h.event_id, h.applied_at FROM cart_history h JOIN filled c ON c.id = h.cart_id) AS f
              ORDER BY f.at DESC LIMIT 1000)::uuid[] AS event_ids,
       ARRAY(SELECT w.id::text FROM who w UNION ALL SELECT c.id::text FROM filled c UNION ALL SELECT b.id::text FROM bought b)::text[] AS keys
  FROM who;

-- name: UserAccount :one
-- The plan is what billing wrote, and nothing else; how long it may take is judged by the database's clock.
SELECT u.email, u.name, u.created_at, u.signup_event_id, s.trial_ends_at,
       (CASE WHEN s.user_id IS NOT NULL AND s.trial_ends_at > clock_timestamp() THEN 'trialing'
             WHEN s.user_id IS NOT NULL THEN 'expired'
             WHEN u.created_at < clock_timestamp() - make_interval(secs => @patience_seconds::double precision) THEN 'delayed'
             ELSE 'setting_up' END)::text AS plan_status,
       EXISTS (SELECT FROM emails e WHERE e.user_id = u.id AND e.kind = 'welcome') AS welcome_sent
  FROM users u LEFT JOIN subscriptions s ON s.user_id = u.id
 WHERE u.id = @id;
