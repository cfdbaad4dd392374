package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func postgresKilled(ctx context.Context, s *stage, d time.Duration) (int, error) {
	return s.without(ctx, "postgres-kill", d, func(context.Context) error { return s.server.Kill() })
}

func postgresImmediate(ctx context.Context, s *stage, d time.Duration) (int, error) {
	return s.without(ctx, "postgres-immediate", d, s.server.Immediate)
}

func postgresRestarted(ctx context.Context, s *stage, d time.Duration) (int, error) {
	return s.without(ctx, "postgres-restart", d, s.server.Stop)
}

// without takes the server away for a while.
func (s *stage) without(ctx context.Context, kind string, d time.Duration, end func(context.Context) error) (int, error) {
	if err := end(ctx); err != nil {
		return 0, fmt.Errorf("%s: %w", kind, err)
	}
	s.refuses(ctx, kind, d)
	if err := s.server.Restart(ctx); err != nil {
		return 1, fmt.Errorf("%s: start it again: %w", kind, err)
	}
	s.direct.Reset()
	return 1, s.resumes(ctx, kind, afterPostgres)
}

// refuses asks every process for a while: each answer is a 503 that says when to come back, and comes in time.
func (s *stage) refuses(ctx context.Context, kind string, d time.Duration) {
	end := time.Now().Add(d)
	var asking sync.WaitGroup
	for _, slot := range s.slots {
		asking.Go(func() {
			for n := 0; time.Now().Before(end) || n < 1; n++ {
				s.refusesOnce(ctx, kind, slot)
				if !sleep(ctx, 200*time.Millisecond) {
					return
				}
			}
		})
	}
	asking.Wait()
}

func (s *stage) refusesOnce(ctx context.Context, kind string, slot *slot) {
	api, _ := slot.addresses()
	if api == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	status, retry, err := get(ctx, "http://"+api+"/v1/products")
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		s.violations.add("%s: %s did not answer within %s", kind, slot.name, requestTime)
	case err != nil: // it is on its way up, or was killed
	case status == http.StatusServiceUnavailable && retry == "":
		s.violations.add("%s: a 503 of %s has no Retry-After", kind, slot.name)
	case status >= 500 && status != http.StatusServiceUnavailable:
		s.violations.add("%s: %s answered %d", kind, slot.name, status)
	case status == http.StatusServiceUnavailable:
		s.mu.Lock()
		s.refused++
		s.mu.Unlock()
	}
}

func get(ctx context.Context, url string) (status int, retryAfter string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Header.Get("Retry-After"), nil
}

// postgresHangs stops the server's processes: connections stay open and nothing answers.
func postgresHangs(ctx context.Context, s *stage, d time.Duration) (int, error) {
	before := s.goroutines(ctx)
	if err := s.server.Hang(); err != nil {
		return 0, err
	}
	end := time.Now().Add(d)
	var during int
	for time.Now().Before(end) && sleep(ctx, time.Second) {
		during = max(during, s.goroutines(ctx))
	}
	conns := s.dbs[0].Stats().Open
	if err := s.server.Wake(); err != nil {
		return 1, err
	}
	// A request of a client is a few goroutines, and clients are few: what grows with time would be far above.
	if during > before+600 {
		s.violations.add("postgres-hang: %d goroutines in all processes before, %d during", before, during)
	}
	if limit := (s.pool()+10)*len(s.slots) + 50; conns > limit {
		s.violations.add("postgres-hang: %d connections, with pools of %d in %d processes", conns, s.pool(), len(s.slots))
	}
	return 1, s.resumes(ctx, "postgres-hang", afterCrash)
}

// goroutines are those of all processes.
func (s *stage) goroutines(ctx context.Context) int {
	n := 0
	for _, slot := range s.slots {
		if v, err := slot.vitals(ctx); err == nil {
			n += v.Goroutines
		}
	}
	return n
}

// diskFull leaves no room on the disk with the server's data, or on the one with its write-ahead log.
func diskFull(ctx context.Context, s *stage, d time.Duration) (int, error) {
	kind := string(s.setting)
	if err := s.disk.Fill(ctx); err != nil {
		return 0, err
	}
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		s.refuses(ctx, kind, 200*time.Millisecond)
	}
	if err := s.disk.Free(); err != nil {
		return 1, err
	}
	// A full disk with the write-ahead log ends the server; whatever runs it starts it again.
	if !s.server.Running() {
		if err := s.server.Restart(ctx); err != nil {
			return 1, err
		}
	}
	s.direct.Reset()
	return 1, s.resumes(ctx, kind, afterCrash)
}

// failover kills the primary; the standby takes over, and the old primary becomes the next standby.
func failover(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	took, err := s.pair.Failover(ctx)
	if err != nil {
		return 0, err
	}
	s.note("failover-promotion", took)
	s.direct.Reset()
	if err := s.resumes(ctx, "failover", afterCrash); err != nil {
		return 1, err
	}
	if err := s.pair.Rebuild(ctx); err != nil {
		return 1, fmt.Errorf("rebuild the standby: %w", err)
	}
	return 1, s.resumes(ctx, "failover-rebuilt", afterCrash)
}

func poolerRestarted(ctx context.Context, s *stage, d time.Duration) (int, error) {
	if err := s.pooler.Hang(); err != nil {
		return 0, err
	}
	s.refuses(ctx, "pooler-restart", d)
	if err := s.pooler.Restart(ctx); err != nil {
		return 1, err
	}
	return 1, s.resumes(ctx, "pooler-restart", afterCrash)
}

// snapshotRate is how much of the rate of effects there must be while there is an old snapshot.
const snapshotRate = 0.6

// longTransactions hold a snapshot, and an event that is not committed, for a long time.
func longTransactions(ctx context.Context, s *stage, d time.Duration) (int, error) {
	window := 2 * time.Second
	if s.long {
		window = 30 * time.Second
	}
	before, err := s.rate(ctx, window)
	if err != nil {
		return 0, err
	}
	idle, err := pgx.Connect(ctx, s.url(database))
	if err != nil {
		return 0, err
	}
	defer func() { _ = idle.Close(ctx) }()
	long, err := pgx.Connect(ctx, s.url(database))
	if err != nil {
		return 0, err
	}
	defer func() { _ = long.Close(ctx) }()
	if _, err := idle.Exec(ctx, "begin isolation level repeatable read; select count(*) from consumers"); err != nil {
		return 0, err
	}
	if _, err := long.Exec(ctx, "begin; select faults.append('fault.noted', 'long', '{}')"); err != nil {
		return 0, err
	}
	if err := s.resumes(ctx, "snapshot", afterPostgres); err != nil {
		return 2, err
	}
	sleep(ctx, d)
	during, err := s.rate(ctx, window)
	if err != nil {
		return 2, err
	}
	s.ratio("snapshot, rate during to before", during/max(before, 1))
	if s.long && during < snapshotRate*before { // a short window says nothing
		s.violations.add("snapshot: %.0f effects a second before, %.0f with an old snapshot", before, during)
	}
	if err := s.resumes(ctx, "snapshot", afterPostgres); err != nil {
		return 2, err
	}
	if _, err := long.Exec(ctx, "commit"); err != nil {
		return 2, err
	}
	_, err = idle.Exec(ctx, "commit")
	return 2, err
}

// rate is how many effects a second there are.
func (s *stage) rate(ctx context.Context, over time.Duration) (float64, error) {
	count := func() (int64, error) {
		return one[int64](ctx, s, "select last_value from faults.effects_seq_seq")
	}
	a, err := count()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	sleep(ctx, over)
	b, err := count()
	return float64(b-a) / time.Since(began).Seconds(), err
}

// conflicts provokes what the server rolls transactions back for.
func conflicts(ctx context.Context, s *stage, d time.Duration) (int, error) {
	n := 0
	for _, do := range []string{"serialization", "deadlock", "division"} {
		if err := s.trouble(ctx, do, 2, "conflict-"+do); err != nil {
			return n, err
		}
		n++
	}
	conn, err := pgx.Connect(ctx, s.url(database))
	if err != nil {
		return n, err
	}
	defer func() { _ = conn.Close(ctx) }()
	// Locks that everybody waits for, each in turn for a share of the time: an appender's, the drains', the deliveries'.
	for _, lock := range []string{
		"select pg_advisory_xact_lock(hashtextextended('hot0', 0))",
		"lock table processed_events in share mode",
		"lock table cursors in share row exclusive mode",
		"select * from relay_state for update",
		"lock table holds in share row exclusive mode",
	} {
		if _, err := conn.Exec(ctx, "begin; "+lock); err != nil {
			var pg *pgconn.PgError
			if errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "55P03") {
				_, _ = conn.Exec(ctx, "rollback")
				continue
			}
			return n, fmt.Errorf("%s: %w", strings.Fields(lock)[2], err)
		}
		sleep(ctx, d/5)
		if _, err := conn.Exec(ctx, "rollback"); err != nil {
			return n, err
		}
		n++
	}
	// Backends that are cancelled in the middle of whatever they do.
	end := time.Now().Add(d / 5)
	for time.Now().Before(end) && sleep(ctx, 50*time.Millisecond) {
		if _, err := conn.Exec(ctx, `select pg_cancel_backend(pid) from pg_stat_activity
			where datname = current_database() and pid <> pg_backend_pid() and state = 'active' order by random() limit 2`); err != nil {
			return n, err
		}
		n++
	}
	return n, s.resumes(ctx, "conflicts", afterCrash)
}
