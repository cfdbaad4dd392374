-- name: WebhookInsert :exec
INSERT INTO /*schema*/webhooks (consumer, url, secret) VALUES (@consumer, @url, @secret);

-- name: WebhookConsumers :many
SELECT consumer FROM /*schema*/webhooks ORDER BY consumer;

-- name: WebhookList :many
-- All, or the one of that consumer. None of its secrets.
SELECT w.consumer, w.url, w.created_at, w.changed_at, w.failing_since, w.last_status, coalesce(w.last_error, '')::text AS last_error, w.last_at,
       c.paused_at, w.disabled_at, coalesce(w.disabled_reason, '')::text AS disabled_reason,
       coalesce(c.paused_at IS NOT NULL AND w.disabled_at >= coalesce(c.resumed_at, '-infinity'), false)::boolean AS disabled,
       ARRAY(SELECT s.pattern FROM /*schema*/consumer_subscriptions s WHERE s.consumer = w.consumer ORDER BY s.pattern)::text[] AS types
  FROM /*schema*/webhooks w JOIN /*schema*/consumers c ON c.name = w.consumer
 WHERE w.consumer = sqlc.narg(consumer) OR sqlc.narg(consumer) IS NULL ORDER BY w.consumer;

-- name: WebhookForDelivery :one
SELECT url, secret, (CASE WHEN old_secret_until > clock_timestamp() THEN coalesce(old_secret, '') ELSE '' END)::text AS old_secret,
       (failing_since IS NOT NULL OR last_error IS NOT NULL)::boolean AS failed
  FROM /*schema*/webhooks WHERE consumer = @consumer;

-- name: WebhookSetURL :execrows
-- What the endpoint that it was has done is no fault of the new one.
UPDATE /*schema*/webhooks SET url = @url, changed_at = clock_timestamp(), failing_since = NULL, last_status = NULL, last_error = NULL, last_at = NULL
 WHERE consumer = @consumer;

-- name: WebhookRotate :execrows
UPDATE /*schema*/webhooks SET old_secret = secret, old_secret_until = clock_timestamp() + make_interval(secs => @seconds), secret = @secret, changed_at = clock_timestamp()
 WHERE consumer = @consumer;

-- name: WebhookFailed :one
-- Of another URL than the present one it is no failure any more.
UPDATE /*schema*/webhooks
   SET failing_since = coalesce(failing_since, statement_timestamp()), last_status = sqlc.narg(last_status), last_error = @last_error::text, last_at = statement_timestamp()
 WHERE consumer = @consumer AND url = @url
RETURNING coalesce(failing_since, last_at)::timestamptz AS since, (failing_since = last_at)::boolean AS first, (failing_since < clock_timestamp() - make_interval(secs => @seconds))::boolean AS too_long;

-- name: WebhookDelivered :execrows
-- Also where it was enabled since the last failure, which leaves that to be seen: this is what ends it.
UPDATE /*schema*/webhooks SET failing_since = NULL, last_status = @last_status::smallint, last_error = NULL, last_at = clock_timestamp()
 WHERE consumer = @consumer AND url = @url AND (failing_since IS NOT NULL OR last_error IS NOT NULL);

-- name: WebhookDisable :execrows
UPDATE /*schema*/webhooks SET disabled_at = clock_timestamp(), disabled_reason = @reason::text, changed_at = clock_timestamp() WHERE consumer = @consumer;

-- name: WebhookDisableFailing :execrows
-- Not where it was done, or mended, meanwhile. The consumer's row is locked, and paused by now.
UPDATE /*schema*/webhooks w SET disabled_at = clock_timestamp(), disabled_reason = @reason::text, changed_at = clock_timestamp()
  FROM /*schema*/consumers c
 WHERE w.consumer = @consumer AND c.name = w.consumer AND w.url = @url
   AND (w.disabled_at IS NULL OR w.disabled_at < coalesce(c.resumed_at, '-infinity'))
   AND (w.failing_since < clock_timestamp() - make_interval(secs => @seconds) OR @at_once::boolean);

-- name: WebhookEnable :execrows
UPDATE /*schema*/webhooks SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL, changed_at = clock_timestamp() WHERE consumer = @consumer;
