package workers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// RelayArgs are the arguments of the relay's job.
type RelayArgs struct{}

// Kind is the relay's job kind.
func (RelayArgs) Kind() string { return "outbox_relay" }

// DrainArgs name the lane that a drain job works off.
type DrainArgs struct {
	Consumer string `json:"consumer"`
	Lane     int16  `json:"lane"`
}

// Kind is the drains' job kind.
func (DrainArgs) Kind() string { return "outbox_drain" }

// DeliverArgs name the event that a deliver job delivers. One consumer has one unfinished job per event at most.
type DeliverArgs struct {
	Consumer      string    `json:"consumer"       river:"unique"`
	EventID       uuid.UUID `json:"event_id"       river:"unique"`
	CorrelationID string    `json:"correlation_id"`
	// NotBefore is when the first attempt may begin, if that is some milliseconds from the job's start (outbox.Delivery).
	NotBefore time.Time `json:"not_before,omitzero"`
}

// Kind is the deliver jobs' kind. The dead-letter trigger on river_job goes by it.
func (DeliverArgs) Kind() string { return "outbox_deliver" }

// Not among the states: completed, cancelled and discarded. A replay is a new job for an event that had one.
var unfinished = []rivertype.JobState{
	rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning,
	rivertype.JobStateRetryable, rivertype.JobStateScheduled,
}

// jobs is what the engine asks of River.
type jobs struct {
	client *river.Client[pgx.Tx]
	clock  *clock
}

// NewJobs returns the inserting side alone, for a process that runs no workers and replays dead letters.
func NewJobs(pool *pgxpool.Pool, schema outbox.Schema) (outbox.Jobs, error) {
	client, err := NewClient(pool, schema)
	if err != nil {
		return nil, err
	}
	return jobs{client, newClock()}, nil
}

// NewClient returns a River client that works no job, over the tables that pool finds in schema (empty: by the search_path). It is for tools that
// are made for River. It needs no Start, and no LISTEN: pool may lead through a transaction pooler. It is safe for concurrent use.
func NewClient(pool *pgxpool.Pool, schema outbox.Schema) (*river.Client[pgx.Tx], error) {
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: string(schema)})
	if err != nil {
		return nil, fmt.Errorf("workers: river client: %w", err)
	}
	return client, nil
}

func drainJob(l outbox.Lane) (DrainArgs, *river.InsertOpts) {
	return DrainArgs{l.Consumer, l.Lane}, &river.InsertOpts{Queue: outbox.DrainQueue(l.Consumer), MaxAttempts: 1}
}

func (j jobs) wakeLane(ctx context.Context, l outbox.Lane) error {
	args, opts := drainJob(l)
	_, err := j.client.Insert(ctx, args, opts)
	return err
}

func (j jobs) WakeLanes(ctx context.Context, tx pgx.Tx, lanes []outbox.Lane) error {
	params := make([]river.InsertManyParams, len(lanes))
	for i, l := range lanes {
		params[i].Args, params[i].InsertOpts = drainJob(l)
	}
	if _, err := j.client.InsertManyFastTx(ctx, tx, params); err != nil {
		return fmt.Errorf("insert %d drain jobs: %w", len(lanes), err)
	}
	return nil
}

func (j jobs) Deliver(ctx context.Context, tx pgx.Tx, deliveries []outbox.Delivery) ([]int64, error) {
	params := make([]river.InsertManyParams, len(deliveries))
	for i, d := range deliveries {
		opts := &river.InsertOpts{
			Queue: outbox.DeliverQueue(d.Consumer), MaxAttempts: d.MaxAttempts,
			UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: unfinished},
		}
		if d.After > 0 {
			opts.ScheduledAt = j.clock.Now().Add(d.After)
		}
		params[i] = river.InsertManyParams{Args: DeliverArgs{d.Consumer, d.EventID, d.CorrelationID, d.NotBefore}, InsertOpts: opts}
	}
	results, err := j.client.InsertManyTx(ctx, tx, params)
	if err != nil {
		return nil, fmt.Errorf("insert %d deliver jobs: %w", len(deliveries), err)
	}
	ids := make([]int64, len(results))
	for i, r := range results {
		if r.UniqueSkippedAsDuplicate {
			return nil, &outbox.ConflictError{
				Reason: fmt.Sprintf("event %s has the unfinished job %d for consumer %s", deliveries[i].EventID, r.Job.ID, deliveries[i].Consumer),
				JobID:  r.Job.ID,
			}
		}
		ids[i] = r.Job.ID
	}
	return ids, nil
}

func (j jobs) StartRelay(ctx context.Context, tx pgx.Tx) error {
	if _, err := j.client.InsertTx(ctx, tx, RelayArgs{}, &river.InsertOpts{Queue: outbox.RelayQueue, MaxAttempts: 1}); err != nil {
		return fmt.Errorf("insert the relay's job: %w", err)
	}
	return nil
}

func (j jobs) SetPaused(ctx context.Context, tx pgx.Tx, consumer string, paused bool) error {
	set := j.client.QueueResumeTx
	if paused {
		set = j.client.QueuePauseTx
	}
	for _, queue := range []string{outbox.DrainQueue(consumer), outbox.DeliverQueue(consumer)} {
		// A queue that no process has worked yet is not known: the pause is read in the consumer's own row.
		if err := set(ctx, tx, queue, nil); err != nil && !errors.Is(err, river.ErrNotFound) {
			return fmt.Errorf("pause or resume queue: %w", err)
		}
	}
	return nil
}
