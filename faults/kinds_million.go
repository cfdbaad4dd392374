package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/faultkit"
)

const (
	million = 1_000_000
	// pileTime is how long a million events may take until all of them have their effects.
	pileTime = 20 * time.Minute
	// ingestRounds is how often the 99th percentile of writing is measured, before a backlog and beside it. That all of these are above all of
	// those would happen by chance once in 252 runs (of the ways to order five and five, one).
	ingestRounds = 5
	// mostMemory is of a process of the service while there are a million events that it cannot apply.
	mostMemory = 300 << 20
)

// backlog lets a million events pile up, and then has everybody write as before while they are worked off.
func backlog(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	consumers := []string{"ledger", "ledger-set"}
	all := func(action string) error {
		for _, c := range consumers {
			if err := s.operate(ctx, s.anySlot(), "POST", "/admin/consumers/"+c+"/"+action, `{"reason":"a backlog"}`); err != nil {
				return err
			}
		}
		return nil
	}
	before, err := s.ingests(ctx)
	if err != nil {
		return 0, err
	}
	if err := all("pause"); err != nil {
		return 0, err
	}
	if err := s.pile(ctx, million, 997, faultkit.Noted, "{}"); err != nil {
		return 0, err
	}
	if err := all("resume"); err != nil {
		return 0, err
	}
	began := time.Now()
	during, err := s.ingests(ctx)
	if err != nil {
		return 1, err
	}
	behind, err := s.behind(ctx, consumers)
	if err != nil {
		return 1, err
	}
	s.ratio("backlog, ingest p99 during to before", middle(during).Seconds()/middle(before).Seconds())
	s.ratio("backlog, largest to smallest ingest p99 before", before[ingestRounds-1].Seconds()/before[0].Seconds())
	s.ratio("backlog, largest to smallest ingest p99 during", during[ingestRounds-1].Seconds()/during[0].Seconds())
	s.ratio("backlog, ms of ingest p99 during", float64(middle(during).Microseconds())/1000)
	s.ratio("backlog, events left when that was measured", float64(behind))
	if during[0] > before[ingestRounds-1] {
		s.violations.add("backlog: the 99th percentile of writing was %v before and %v during it, which is no noise", before, during)
	}
	if behind == 0 {
		s.violations.add("backlog: it was worked off before the writing beside it was measured")
	}
	if err := s.caughtUp(ctx, "the backlog is worked off", consumers); err != nil {
		return 1, err
	}
	s.note("backlog, until it was worked off", time.Since(began))
	s.ratio("backlog, MiB of the largest process", float64(s.largest())/(1<<20))
	return 1, s.resumes(ctx, "backlog", afterCrash)
}

// behind is how many events lie ahead of the cursors of consumers, of the one that has most.
func (s *stage) behind(ctx context.Context, consumers []string) (int64, error) {
	return one[int64](ctx, s, `select coalesce(max(n), 0) from (select c.consumer, count(*) as n from cursors c join events e on e.lane = c.lane and e.pos > c.pos
		where c.consumer = any($1) group by c.consumer) b`, consumers)
}

// caughtUp waits until the consumers have, but for what has just come, nothing ahead of their cursors.
func (s *stage) caughtUp(ctx context.Context, what string, consumers []string) error {
	return until(ctx, pileTime, what, func() bool {
		sleep(ctx, time.Second)
		n, err := s.behind(ctx, consumers)
		return err == nil && n < 1000
	})
}

// largest is the memory of the largest process, in bytes.
func (s *stage) largest() (most int64) {
	for _, slot := range s.slots {
		most = max(most, slot.memory())
	}
	return most
}

// pile appends many events to so many keys in large transactions. They count as acknowledged.
func (s *stage) pile(ctx context.Context, n, keys int, kind, data string) error {
	const batch = 1000
	correlation := uuid.NewString()
	// Where there are so many, the log is that of an installation: its partitions are not small.
	if _, err := s.direct.Exec(ctx, "update relay_state set partition_size = default"); err != nil {
		return fmt.Errorf("pile up events: %w", err)
	}
	for from := 0; from < n; from += batch {
		rows, err := s.direct.Query(ctx, `select a.event_id from generate_series($1::int, $2::int) i,
			lateral faults.append($3, 'pile' || (i % $4), $5::jsonb, $6) a`, from, from+batch-1, kind, keys, data, correlation)
		if err != nil {
			return fmt.Errorf("pile up events: %w", err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return fmt.Errorf("pile up events: %w", err)
		}
		entries := make([]entry, len(ids))
		for i, id := range ids {
			entries[i] = entry{kind, id, correlation}
		}
		if err := s.journal.acknowledge(entries...); err != nil {
			return err
		}
	}
	return nil
}

// ingest appends one by one and returns the 99th percentile of the time that takes.
func (s *stage) ingest(ctx context.Context, n int) (time.Duration, error) {
	took := make([]time.Duration, n)
	for i := range took {
		began := time.Now()
		if _, err := s.direct.Exec(ctx, "select faults.append($1, $2, '{}')", faultkit.Noted, fmt.Sprintf("ingest%d", i%50)); err != nil {
			return 0, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[n*99/100], nil
}

// ingests measures the 99th percentile some times, for how far it swings by itself, and returns them in order: the one in the middle counts.
func (s *stage) ingests(ctx context.Context) (p99 [ingestRounds]time.Duration, err error) {
	for i := range p99 {
		if p99[i], err = s.ingest(ctx, 1000); err != nil {
			return p99, err
		}
	}
	slices.Sort(p99[:])
	return p99, nil
}

func middle(sorted [ingestRounds]time.Duration) time.Duration { return sorted[ingestRounds/2] }

// millionPoisons gives a consumer a million events that fail until a switch is turned: the first of each of some thousand keys becomes a
// dead letter, and the others of its key wait.
func millionPoisons(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	before, err := s.latency(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := s.direct.Exec(ctx, "insert into faults.switches values ('poison', 'on') on conflict do nothing"); err != nil {
		return 0, err
	}
	if err := s.pile(ctx, million, 5000, faultkit.Trouble, `{"do": "switched"}`); err != nil {
		return 0, err
	}
	if err := s.caughtUp(ctx, "all that is poisoned is dead or waits", []string{"trouble"}); err != nil {
		return 0, err
	}
	memory := s.largest()
	during, err := s.latency(ctx)
	if err != nil {
		return 0, err
	}
	s.ratio("million poisons, p99 of the others during to before", during.Seconds()/before.Seconds())
	s.ratio("million poisons, ms of that p99 during", float64(during.Microseconds())/1000)
	s.ratio("million poisons, MiB of the largest process", float64(memory)/(1<<20))
	if memory > mostMemory {
		s.violations.add("million-poisons: a process has %d MiB", memory>>20)
	}
	if _, err := s.direct.Exec(ctx, "delete from faults.switches where name = 'poison'"); err != nil {
		return 0, err
	}
	began := time.Now()
	for {
		dead, err := s.replayDead(ctx)
		if err != nil {
			return million, err
		}
		left, err := one[int64](ctx, s, "select count(*) from waiting where consumer = 'trouble'")
		if err != nil {
			return million, err
		}
		if dead == 0 && left == 0 {
			break
		}
		if time.Since(began) > pileTime {
			return million, fmt.Errorf("the poisoned are applied: %w (%s)", errLate, pileTime)
		}
		sleep(ctx, time.Second)
	}
	s.note("million-poisons, until all were applied", time.Since(began))
	return million, s.resumes(ctx, "million-poisons", afterCrash)
}

// latency is the 99th percentile from an event's commit to its effects. Of 300 probes one after the other it was from 250 to 505 ms, with
// nothing changed between; it takes more of them for a ratio.
func (s *stage) latency(ctx context.Context) (time.Duration, error) {
	took := make([]time.Duration, 1000)
	for i := range took {
		var err error
		if took[i], err = s.probe(ctx, afterCrash); err != nil {
			return 0, err
		}
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}
