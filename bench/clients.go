package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

const (
	// What is measured begins when the clients have done warmWrites each, on average: until then connections are opened,
	// their server processes take hold of its memory, and statements are prepared and planned. It begins after warmUp at
	// the latest.
	warmWrites = 40
	warmUp     = 3 * time.Second
)

const insertUser = `INSERT INTO users (id, email, name) VALUES ($1, $2, $3)`

// writeState writes the state that every write case begins with: a user who signs up.
func writeState(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	_, err := tx.Exec(ctx, insertUser, id, id.String()+"@example.com", "Somebody")
	return err
}

// clients write as fast as they can, each one transaction after the other.
type clients struct {
	count int
	// write does one transaction and returns after its commit. i is the client, n how many it has done before.
	write func(ctx context.Context, i int, n int64) error

	committed atomic.Int64
}

// run lets the clients write until ctx ends or until is closed. A write that was begun is finished, so that committed says
// exactly how many there are.
func (c *clients) run(ctx context.Context, until <-chan struct{}) error {
	group, working := errgroup.WithContext(ctx)
	for i := range c.count {
		group.Go(func() error {
			for n := int64(0); ; n++ {
				select {
				case <-until:
					return nil
				default:
				}
				if err := c.write(working, i, n); err != nil {
					return err
				}
				c.committed.Add(1)
			}
		})
	}
	return group.Wait()
}

// during runs the clients and calls fn meanwhile, once they are warm; when fn returns the clients stop.
func (c *clients) during(ctx context.Context, fn func() error) error {
	until, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- c.run(ctx, until) }()
	err := func() error {
		for begun := time.Now(); c.committed.Load() < int64(c.count)*warmWrites && time.Since(begun) < warmUp; {
			if !pause(ctx, 5*time.Millisecond) {
				return ctx.Err()
			}
		}
		return fn()
	}()
	close(until)
	if failed := <-ended; failed != nil {
		return failed
	}
	return err
}

// countRows counts the rows of a table.
func countRows(ctx context.Context, pool *pgxpool.Pool, table string) (int64, error) {
	var n int64
	err := pool.QueryRow(ctx, `SELECT count(*) FROM `+table).Scan(&n)
	return n, err
}
