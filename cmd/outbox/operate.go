package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
	"github.com/pgoutbox/pgoutbox/workers/consumers"
)

// operate gives fn an operator on DATABASE_URL. The service need not run.
func operate(ctx context.Context, fn func(*outbox.Operator) error) error {
	return operateOn(ctx, func(_ *pgxpool.Pool, o *outbox.Operator) error { return fn(o) })
}

// operateOn is operate for what reads the shop's tables too.
func operateOn(ctx context.Context, fn func(*pgxpool.Pool, *outbox.Operator) error) error {
	url, pollOnly, err := databaseConfig()
	if err != nil {
		return err
	}
	pool, err := openPool(ctx, url, pollOnly)
	if err != nil {
		return err
	}
	defer pool.Close()
	jobs, err := workers.NewJobs(pool, "")
	if err != nil {
		return err
	}
	err = fn(pool, outbox.NewOperator(pool, jobs, "", nil).WithConsumers(consumersCode(pool)))
	if errors.Is(err, outbox.ErrReasonRequired) {
		return usage("--reason is required: it is kept in the audit")
	}
	return err
}

// consumersCode is what an operator does with the consumers' code, a rehearsal above all, where they do not run. That never calls the outside:
// nothing is there to call it with.
func consumersCode(pool *pgxpool.Pool) *outbox.Registry {
	reg := outbox.NewRegistry()
	consumers.Register(reg, consumers.Deps{Pool: pool, Logger: slog.New(slog.DiscardHandler)})
	registerFaults(reg, pool)
	return reg
}
