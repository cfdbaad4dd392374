-- name: UserCreate :exec
INSERT INTO users (id, email, name, password_hash, signup_event_id) VALUES ($1, $2, $3, $4, $5);

-- name: UserCredentials :one
SELECT id, password_hash FROM users WHERE lower(email) = lower(@email::text);

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
