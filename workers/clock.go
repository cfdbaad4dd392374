package workers

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// clock tells the database's time, by which jobs are fetched. River goes by its process's clock in all else: a process that leads with
// a wrong one would delete jobs too early and move those that are due too late, and one that runs a job would put its next
// attempt off by as much as it errs.
type clock struct {
	local  func() time.Time
	offset atomic.Int64 // what is added to the local time, in nanoseconds
}

func newClock() *clock { return &clock{local: time.Now} }

// Now is the database's time, as of the last measurement.
func (c *clock) Now() time.Time { return c.local().Add(time.Duration(c.offset.Load())) }

// NowOrNil leaves it to the database what time it is where River asks it.
func (*clock) NowOrNil() *time.Time { return nil }

// measure asks the database for its time. A difference that the way there and back may explain changes nothing.
func (c *clock) measure(ctx context.Context, pool *pgxpool.Pool) error {
	began := time.Now()
	var there time.Time
	if err := pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&there); err != nil {
		return fmt.Errorf("workers: ask for the database's time: %w", err)
	}
	way := time.Since(began)
	offset := there.Sub(c.local().Round(0)) + way/2
	if was := time.Duration(c.offset.Load()); (offset - was).Abs() > max(way, time.Millisecond) {
		c.offset.Store(int64(offset))
	}
	return nil
}
