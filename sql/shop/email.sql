-- name: EmailRecipient :one
SELECT email, name FROM users WHERE id = $1;

-- name: EmailRecord :exec
-- A mail may have been sent before its attempt was cut off, or be sent again by a forced backfill: the first row stays.
-- A user who was erased meanwhile leaves none.
INSERT INTO emails (event_id, kind, user_id, message_id)
SELECT @event_id, @kind, u.id, @message_id FROM users u WHERE u.id = @user_id
ON CONFLICT (event_id, kind) DO NOTHING;
