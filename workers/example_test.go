package workers_test

import (
	"context"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/migrations"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

// A process that works until it is told to stop, with the tables in a schema of their own.
func ExampleNew() {
	run := func(databaseURL string) error {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		if err := migrations.Up(ctx, databaseURL, migrations.Options{Schema: "outbox"}); err != nil {
			return err
		}
		pool, err := pgxpool.New(ctx, databaseURL)
		if err != nil {
			return err
		}
		defer pool.Close() // after Stop

		reg := outbox.NewRegistry()
		outbox.Handle(reg, "billing", func(context.Context, pgx.Tx, outbox.Received[struct{}]) error { return nil }, outbox.On("user.*"))
		w, err := workers.New(pool, reg, workers.Config{
			Schema: "outbox", Logger: slog.Default(), MaxAttempts: 10, RetryMax: time.Minute,
		})
		if err != nil {
			return err
		}
		if err := w.Start(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		stopping, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		return w.Stop(stopping)
	}
	_ = run
}

// A program for operators inserts jobs, and runs none.
func ExampleNewJobs() {
	replay := func(ctx context.Context, pool *pgxpool.Pool, letter int64) error {
		jobs, err := workers.NewJobs(pool, "outbox")
		if err != nil {
			return err
		}
		operator := outbox.NewOperator(pool, jobs, "outbox", slog.Default())
		_, err = operator.Replay(ctx, letter, nil, outbox.Action{Actor: "anna", Reason: "the cause is repaired"})
		return err
	}
	_ = replay
}
