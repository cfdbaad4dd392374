-- name: SubscriptionStart :exec
-- No ON CONFLICT: that a trial starts once is the engine's job, and a double must show.
INSERT INTO subscriptions (user_id, plan, trial_ends_at)
VALUES (@user_id, @plan, clock_timestamp() + make_interval(days => @trial_days::integer));

-- name: SubscriptionMakeUp :exec
-- In a backfill: who has a trial keeps it.
INSERT INTO subscriptions (user_id, plan, trial_ends_at)
VALUES (@user_id, @plan, clock_timestamp() + make_interval(days => @trial_days::integer)) ON CONFLICT (user_id) DO NOTHING;

-- name: SubscriptionsStarted :many
-- Which of the users have a plan.
SELECT user_id FROM subscriptions WHERE user_id = ANY (@user_ids::uuid[]);
