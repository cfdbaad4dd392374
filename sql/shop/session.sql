-- name: SessionCreate :one
INSERT INTO sessions (token_hash, user_id, expires_at)
VALUES (@token_hash, @user_id, clock_timestamp() + make_interval(days => @days::integer))
RETURNING expires_at;

-- name: SessionUser :one
SELECT user_id FROM sessions WHERE token_hash = $1 AND expires_at > clock_timestamp();

-- name: SessionDelete :exec
DELETE FROM sessions WHERE token_hash = $1;

-- name: SessionPurge :execrows
DELETE FROM sessions WHERE token_hash IN (
    SELECT s.token_hash FROM sessions s WHERE s.expires_at < clock_timestamp()
     ORDER BY s.expires_at LIMIT @most::integer FOR UPDATE SKIP LOCKED);
