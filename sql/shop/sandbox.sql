-- name: SandboxOutage :one
SELECT outage FROM sandbox.mode;

-- name: SandboxSetOutage :exec
UPDATE sandbox.mode SET outage = $1;

-- name: SandboxIntentCreate :execrows
INSERT INTO sandbox.intents (id, idempotency_key, amount, currency, method, metadata) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (idempotency_key) DO NOTHING;

-- name: SandboxIntentByKey :one
SELECT * FROM sandbox.intents WHERE idempotency_key = $1;

-- name: SandboxIntentGet :one
SELECT * FROM sandbox.intents WHERE id = $1;

-- name: SandboxIntentLock :one
SELECT * FROM sandbox.intents WHERE id = $1 FOR UPDATE;

-- name: SandboxIntentSettle :exec
UPDATE sandbox.intents SET status = $2, decline_code = $3 WHERE id = $1;

-- name: SandboxChargeCreate :exec
INSERT INTO sandbox.charges (intent_id, amount, currency) VALUES ($1, $2, $3);

-- name: SandboxCharges :many
SELECT c.id, c.intent_id, (i.metadata ->> 'order_id')::text AS order_id, c.amount, c.currency, c.created_at
  FROM sandbox.charges c JOIN sandbox.intents i ON i.id = c.intent_id
 ORDER BY c.id;
