package workers

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivershared/uniquestates"
	"github.com/riverqueue/river/rivertype"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// dearLook is what a look for jobs may take. For dearTimes as long as one that took longer, those that follow are bounded.
	dearLook  = 10 * time.Millisecond
	dearTimes = 20
	// lookBack is how much later than the time in it a job may appear in a bounded look: that of its transaction, and of clocks that differ.
	lookBack = 5 * time.Second
)

// fetchAny takes up jobs as River does, with a commit that does not wait for the disk: a crash of the server that undoes it leaves the jobs
// in their queue, and undoes before that whatever was built upon it. fetchBounded takes up only those from a time on, and of the priority that
// all of ours have: so the index is read between two bounds.
const (
	fetchAny     = fetchBegin + fetchEnd
	fetchBounded = fetchBegin + ` AND priority = 1 AND scheduled_at >= $7` + fetchEnd

	fetchBegin = `WITH locked AS (
    SELECT id FROM /*schema*/river_job
     WHERE state = 'available' AND queue = $1`
	fetchEnd = ` AND scheduled_at <= now() AND ($2::text[] IS NULL OR kind = ANY ($2))
     ORDER BY priority, scheduled_at, id LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE /*schema*/river_job j SET state = 'running', attempt = j.attempt + 1, attempted_at = now() + make_interval(secs => $6),
       attempted_by = array_append(j.attempted_by[greatest(1, coalesce(array_length(j.attempted_by, 1), 0) + 2 - $4::integer):], $5::text)
 WHERE j.id = ANY (ARRAY(SELECT id FROM locked)) AND (SELECT set_config('synchronous_commit', 'off', true)) <> ''
RETURNING id, args, attempt, attempted_at, attempted_by, created_at, errors, kind, max_attempts, metadata, priority, queue, scheduled_at,
          state::text, tags, unique_key, unique_states`
)

// fetcher is River's executor, whose looks for jobs stay cheap. Beside a snapshot that is held open for minutes nothing that is done can be
// cleaned away, and every look goes through all jobs that its queue has had since, from the oldest on (of 30,000, 50 ms). Such a
// look is then made for a small part of the time only, and those between begin where it ended.
//
// What becomes available with an earlier time than that, as retries do that were due for long, is found by the next look at all.
type fetcher struct {
	riverdriver.Executor
	db    querier
	looks *looks
	begin func(queue string, jobs int) time.Duration // within what time jobs begin that are taken up now
	dear  time.Duration
	times time.Duration // how many
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// looks are what is known of the queues. They are safe to use concurrently.
type looks struct {
	clock *clock
	mu    sync.Mutex
	of    map[string]look
}

type look struct {
	from  time.Time // what is available is from then on, but for what came late
	until time.Time // when a look at all is due
}

func newLooks(c *clock) *looks { return &looks{clock: c, of: map[string]look{}} }

func (f *fetcher) JobGetAvailable(ctx context.Context, params *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	if params.Now != nil { // by another clock than the database's
		return f.Executor.JobGetAvailable(ctx, params)
	}
	// One statement: a drain whose job counts as running before the process has it in its hands would soon pass for dead.
	args := []any{params.Queue, params.Kind, params.MaxToLock, params.MaxAttemptedBy, params.ClientID, f.begin(params.Queue, params.MaxToLock).Seconds()}
	if l := f.looks.get(params.Queue); time.Now().Before(l.until) {
		return f.takeUp(ctx, outboxdb.In(params.Schema, fetchBounded), append(args, l.from)...)
	}
	began, now := time.Now(), f.looks.clock.Now()
	res, err := f.takeUp(ctx, outboxdb.In(params.Schema, fetchAny), args...)
	took := time.Since(began)
	if err != nil || took < f.dear {
		return res, err
	}
	next := look{from: now.Add(-lookBack), until: time.Now().Add(f.times * took)}
	if len(res.Jobs) >= params.MaxToLock {
		// There may be more, but none from before the last of these.
		last := time.Time{}
		for _, job := range res.Jobs {
			if job.ScheduledAt.After(last) {
				last = job.ScheduledAt
			}
		}
		if last.Before(next.from) {
			next.from = last
		}
	}
	f.looks.set(params.Queue, next)
	return res, nil
}

func (f *fetcher) takeUp(ctx context.Context, sql string, args ...any) (*riverdriver.JobGetAvailableResult, error) {
	rows, err := f.db.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("workers: take up jobs: %w", err)
	}
	res := &riverdriver.JobGetAvailableResult{}
	res.Jobs, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*rivertype.JobRow, error) {
		job, invalid, err := scanJob(row)
		if invalid != nil {
			if res.DecodeErrors == nil {
				res.DecodeErrors = map[int64]error{}
			}
			res.DecodeErrors[job.ID] = invalid
		}
		return job, err
	})
	if err != nil {
		return nil, fmt.Errorf("workers: take up jobs: %w", err)
	}
	return res, nil
}

// scanJob reads a job that was taken up. One of which the errors of earlier attempts cannot be read is there without them, and invalid says why.
func scanJob(row pgx.CollectableRow) (job *rivertype.JobRow, invalid, err error) {
	job = &rivertype.JobRow{}
	var said [][]byte
	var unique pgtype.Bits
	if err := row.Scan(&job.ID, &job.EncodedArgs, &job.Attempt, &job.AttemptedAt, &job.AttemptedBy, &job.CreatedAt, &said, &job.Kind,
		&job.MaxAttempts, &job.Metadata, &job.Priority, &job.Queue, &job.ScheduledAt, &job.State, &job.Tags, &job.UniqueKey, &unique); err != nil {
		return nil, nil, err
	}
	at := job.AttemptedAt.UTC()
	job.AttemptedAt, job.CreatedAt, job.ScheduledAt = &at, job.CreatedAt.UTC(), job.ScheduledAt.UTC()
	states := byte(0)
	if unique.Valid && len(unique.Bytes) > 0 {
		states = unique.Bytes[0]
	}
	job.UniqueStates = uniquestates.UniqueBitmaskToStates(states)
	job.Errors = make([]rivertype.AttemptError, len(said))
	for i, raw := range said {
		if err := riverdriver.UnmarshalAttemptError(raw, &job.Errors[i]); err != nil {
			job.Errors = nil
			return job, fmt.Errorf("read the errors of job %d: %w", job.ID, err), nil
		}
	}
	return job, nil, nil
}

func (l *looks) get(queue string) look {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[queue]
}

func (l *looks) set(queue string, next look) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of[queue] = next
}
