// Command notes is the application of docs/guide.md with an outbox in it.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/migrations"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

// schema holds the outbox's tables, apart from ours.
const schema outbox.Schema = "outbox"

func main() {
	if err := run(os.Getenv("DATABASE_URL"), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "notes:", err)
		os.Exit(1)
	}
}

func run(databaseURL string, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	pool, err := open(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	if len(args) > 0 {
		return letters(ctx, pool, args)
	}
	w, err := workers.New(pool, consumers(announce), workers.Config{Schema: schema, Logger: slog.Default()})
	if err != nil {
		return err
	}
	if err := w.Start(ctx); err != nil {
		return err
	}
	err = serve(ctx, app{pool}.routes())
	stopping, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return errors.Join(err, w.Stop(stopping))
}

// open brings the tables up to date, the outbox's and ours. Any number of processes may do so at once.
func open(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	if err := migrations.Up(ctx, databaseURL, migrations.Options{Schema: string(schema)}); err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	config.MaxConns = max(config.MaxConns, 20) // the workers need some beside the requests
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, tables); err != nil {
		pool.Close()
		return nil, fmt.Errorf("make the tables: %w", err)
	}
	return pool, nil
}

// serve answers requests until ctx ends.
func serve(ctx context.Context, routes http.Handler) error {
	server := &http.Server{
		Addr: cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8090"), Handler: routes, ReadHeaderTimeout: 5 * time.Second,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(stopping)
}
