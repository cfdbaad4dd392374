package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/faults/build"
	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/faultkit"
)

func (s *stage) anySlot() *slot { return s.slots[s.rng.IntN(len(s.slots))] }

func kill(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	slot := s.anySlot()
	slot.kill()
	if err := s.resumes(ctx, "kill", afterCrash); err != nil {
		return 1, err
	}
	return 1, slot.awaitServe(ctx)
}

// killAtFailpoints has processes die at points of which every process is armed with all that are left. In the short form that is
// each point there is; in the long form a few, those first at which fewest have died.
func killAtFailpoints(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	points, bound := s.pointsDue(), 80*time.Second
	if s.long {
		points, bound = points[:2+s.rng.IntN(6)], 15*time.Second
	}
	hits := s.visit(ctx, points, bound)
	if ctx.Err() != nil {
		return hits, ctx.Err()
	}
	return hits, s.resumes(ctx, "failpoint", afterCrash)
}

// pointsDue are the points in the order in which they are due: first those that were hit least.
func (s *stage) pointsDue() []failpoint.Point {
	points := slices.Clone(failpoint.All())
	s.rng.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortStableFunc(points, func(a, b failpoint.Point) int { return s.hits[string(a)] - s.hits[string(b)] })
	return points
}

// visit arms all processes with all points until each has killed one, or the time is up. A process says in its last line where
// it dies.
func (s *stage) visit(ctx context.Context, points []failpoint.Point, bound time.Duration) (hits int) {
	visiting, end := context.WithTimeout(ctx, bound)
	defer end()
	var mu sync.Mutex
	left := map[failpoint.Point]bool{}
	for _, p := range points {
		left[p] = true
	}
	open := func() []failpoint.Point {
		mu.Lock()
		defer mu.Unlock()
		return slices.Collect(maps.Keys(left))
	}
	died := func(p failpoint.Point) {
		mu.Lock()
		defer mu.Unlock()
		if left[p] {
			hits++
		}
		if delete(left, p); len(left) == 0 {
			end()
		}
		s.mu.Lock()
		s.hits[string(p)]++
		s.mu.Unlock()
	}
	var work sync.WaitGroup
	for i, slot := range s.slots {
		rng := rand.New(rand.NewPCG(s.seed, s.rng.Uint64()+uint64(i)))
		work.Go(func() {
			for visiting.Err() == nil {
				s.dieAt(visiting, slot, rng, open(), died)
			}
			_ = slot.disarm(ctx)
		})
	}
	work.Go(func() {
		for round := 0; sleep(visiting, 700*time.Millisecond); round++ {
			for _, p := range open() {
				s.lead(visiting, p, round)
			}
		}
	})
	work.Wait()
	s.errands.Wait()
	if _, err := s.endCrashes(); err != nil {
		s.violations.add("the crashes cannot be ended: %v", err)
	}
	if err := s.endQuarantine(ctx); err != nil {
		s.violations.add("the quarantine cannot be ended: %v", err)
	}
	return hits
}

// dieAt arms a process and waits until it is dead.
func (s *stage) dieAt(ctx context.Context, slot *slot, rng *rand.Rand, points []failpoint.Point, died func(failpoint.Point)) {
	if slot.awaitServe(ctx) != nil {
		return
	}
	ended, _ := slot.present()
	from := slot.logSize()
	for _, p := range points {
		if slot.arm(ctx, p, 1+rng.IntN(2), "kill") != nil {
			break // it died already
		}
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return
	}
	for line := range strings.Lines(tailOf(slot.logs, from)) {
		if _, at, ok := strings.Cut(line, failpoint.DiesAt); ok {
			died(failpoint.Point(strings.TrimSpace(at)))
		}
	}
}

// lead makes happen what passes a point that ordinary traffic does not pass, or not often.
func (s *stage) lead(ctx context.Context, p failpoint.Point, round int) {
	name := string(p)
	is := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	}
	at := s.slots[round%len(s.slots)]
	switch {
	case is("replay.", "dismiss."):
		if round%3 > 0 {
			return // one takes some seconds
		}
		s.errands.Go(func() { s.operateLetter(ctx, at, is("dismiss.")) })
	case is("backfill."):
		if round%5 > 0 {
			return
		}
		s.errands.Go(func() {
			_ = s.operate(ctx, at, "POST", "/admin/consumers/billing/backfill", `{"from":"beginning","reason":"the harness runs it again"}`)
		})
	case is("drain.park", "drain.hold", "drain.release", "deliver.fail"):
		if round%4 == 0 {
			key := fmt.Sprintf("parked%d", round)
			_ = s.trouble(ctx, "fail", 1, key)
			_ = s.trouble(ctx, "apply", 0, key)
		}
	case is("drain.next"):
		for range 8 {
			if round%10 != 1 {
				break // they keep a worker for some seconds
			}
			_, _ = s.direct.Exec(ctx, `select faults.append('fault.trouble', 'slow', '{"do": "slow", "times": 1, "ms": 400}')`)
		}
	case is("drain.escalate", "drain.try"):
		if round == 1 { // one of them kills eleven processes
			_, _ = s.crash(ctx, 11)
		}
	case is("rescue."):
		// As if the process that runs a delivery had died long ago.
		_, _ = s.direct.Exec(ctx, `update river_job set attempted_at = attempted_at - interval '5 minutes' where kind = 'outbox_deliver' and state = 'running'`)
	case is("reconcile."):
		// A job that is gone, and a trigger that has not seen it go.
		if round%5 == 0 {
			_ = s.trouble(ctx, "fail", 2, fmt.Sprintf("lostjob%d", round))
		}
		_, _ = s.direct.Exec(ctx, `begin; set local session_replication_role = replica; delete from river_job where id in
			(select id from river_job where kind = 'outbox_deliver' and state in ('retryable', 'scheduled', 'available') limit 1 for update skip locked); commit`)
	case is("relay.lead"):
		if round%8 == 7 {
			if leader, err := s.leader(ctx); err == nil {
				leader.kill()
			}
		}
	case is("relay.due"):
		_, _ = s.direct.Exec(ctx, "select outbox_append('fault.later', 'later', '{}', not_before => clock_timestamp() + interval '1 second')")
	case is("relay.partitions"):
		if round%10 == 0 {
			s.dropAhead(ctx)
		}
	case is("relay.quarantine"):
		s.quarantine(ctx)
	case is("retention."):
		s.age(ctx)
	}
}

// trouble appends an event that hurts its consumer.
func (s *stage) trouble(ctx context.Context, do string, times int, key string) error {
	_, err := s.direct.Exec(ctx, "select faults.append($1, $2, jsonb_build_object('do', $3::text, 'times', $4::int))", faultkit.Trouble, key, do, times)
	return err
}

// crash appends an event that kills the process that runs it, so many times.
func (s *stage) crash(ctx context.Context, times int) (uuid.UUID, error) {
	key := fmt.Sprintf("crash%d", s.rng.IntN(1<<30))
	id, err := one[uuid.UUID](ctx, s, "select event_id from faults.append($1, $2, jsonb_build_object('do', 'crash', 'times', $3::int))", faultkit.Trouble, key, times)
	if err == nil {
		s.mu.Lock()
		s.crashing = append(s.crashing, id)
		s.mu.Unlock()
	}
	return id, err
}

// endCrashes lets the events that kill be applied. It returns how many processes they have killed.
func (s *stage) endCrashes() (killed int, err error) {
	s.mu.Lock()
	crashing := s.crashing
	s.crashing = nil
	s.mu.Unlock()
	for _, id := range crashing {
		path := filepath.Join(s.dir, "crashes", id.String())
		if info, err := os.Stat(path); err == nil {
			killed += int(info.Size())
		}
		err = errors.Join(err, os.WriteFile(path, make([]byte, 1000), 0o644))
	}
	return killed, err
}

// operateLetter makes a dead letter and replays it, or dismisses one of the shop's consumers, of which there are none by
// themselves.
func (s *stage) operateLetter(ctx context.Context, at *slot, dismiss bool) {
	key := fmt.Sprintf("letter%d", time.Now().UnixNano())
	if s.trouble(ctx, "permanent", 1, key) != nil {
		return
	}
	var id int64
	if until(ctx, 5*time.Second, "a dead letter", func() (ok bool) {
		var err error
		id, err = one[int64](ctx, s, "select coalesce(max(id), 0) from discarded_jobs where state = 'dead' and key = $1", key)
		return err == nil && id > 0
	}) != nil {
		return
	}
	action := "replay"
	if dismiss {
		action = "dismiss"
	}
	_ = s.operate(ctx, at, "POST", fmt.Sprintf("/admin/dlq/%d/%s", id, action), `{"reason":"the harness"}`)
}

// zombies stops processes in the middle of their work, the leader among them, for longer than anybody waits for them, and lets them
// go on.
func zombies(ctx context.Context, s *stage, d time.Duration) (int, error) {
	leader, err := s.leader(ctx)
	if err != nil {
		return 0, err
	}
	points := []failpoint.Point{failpoint.DrainCommitBefore, failpoint.DeliverCommitBefore}
	standing := s.slots[:processes]
	for _, slot := range standing {
		if err := slot.awaitServe(ctx); err != nil {
			return 0, err
		}
		p := failpoint.RelayClaimBefore
		if slot != leader {
			p, points = points[0], points[1:]
		}
		if err := slot.arm(ctx, p, 1, "stop"); err != nil {
			return 0, err
		}
	}
	_ = s.trouble(ctx, "fail", 1, fmt.Sprintf("zombie%d", s.rng.IntN(1<<30))) // for there to be a delivery
	late := until(ctx, 15*time.Second, "all processes stand still", func() bool {
		return !slices.ContainsFunc(standing, func(slot *slot) bool { return !slot.standsStill() })
	})
	extra := []*slot{}
	for range 2 {
		n := len(s.slots)
		if err := s.addProcess(n); err != nil {
			return 0, err
		}
		extra = append(extra, s.slots[n])
	}
	sleep(ctx, d)
	took, failed := s.probe(ctx, afterCrash)
	if failed != nil {
		failed = fmt.Errorf("beside processes that stand still: %w", failed)
	}
	s.note("zombie, beside them", took)
	stood := 0
	for _, slot := range standing {
		if slot.standsStill() {
			stood++
		} else {
			_ = slot.disarm(ctx)
		}
		slot.signal(syscall.SIGCONT)
	}
	failed = errors.Join(failed, late, s.resumes(ctx, "zombie", afterCrash))
	s.removeProcesses(extra)
	return stood, failed
}

// crashLoop has one event kill the process that runs it, again and again: until it is escalated unrun, and its lane goes on.
func crashLoop(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	id, err := s.crash(ctx, 100)
	if err != nil {
		return 0, err
	}
	failed := until(ctx, 90*time.Second, "an event that kills is escalated unrun", func() bool {
		n, err := one[int](ctx, s, "select count(*) from delivery_log where consumer = 'trouble' and event_id = $1 and outcome = 'suspect'", id)
		return err == nil && n > 0
	})
	if failed == nil {
		failed = s.resumes(ctx, "crash-loop", afterCrash)
	}
	killed, err := s.endCrashes()
	return killed, errors.Join(failed, err)
}

// killLeaders runs eight processes and kills whichever leads, again and again.
func killLeaders(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	var extra []*slot
	for len(s.slots) < 8 {
		n := len(s.slots)
		if err := s.addProcess(n); err != nil {
			return 0, err
		}
		extra = append(extra, s.slots[n])
	}
	for _, slot := range s.slots {
		if err := slot.awaitServe(ctx); err != nil {
			return 0, err
		}
	}
	defer s.removeProcesses(extra)
	rounds := 2
	if s.long {
		rounds = 5
	}
	for n := range rounds {
		leader, err := s.leader(ctx)
		if err != nil {
			return n, err
		}
		leader.kill()
		if err := s.resumes(ctx, "leader", afterLeader); err != nil {
			return n + 1, err
		}
	}
	return rounds, nil
}

// leader finds the process whose relay moves rows.
func (s *stage) leader(ctx context.Context) (found *slot, err error) {
	err = until(ctx, afterCrash, "somebody leads", func() bool {
		before := map[*slot]int{}
		for _, slot := range s.slots {
			if v, err := slot.vitals(ctx); err == nil {
				before[slot] = v.Passages[string(failpoint.RelayClaimBefore)]
			}
		}
		sleep(ctx, 100*time.Millisecond)
		for _, slot := range s.slots {
			if v, err := slot.vitals(ctx); err == nil && v.Passages[string(failpoint.RelayClaimBefore)] > before[slot] {
				found = slot
				return true
			}
		}
		return false
	})
	return found, err
}

// removeProcesses ends the processes that were added last.
func (s *stage) removeProcesses(extra []*slot) {
	var ends sync.WaitGroup
	for _, slot := range extra {
		ends.Go(slot.close)
	}
	ends.Wait()
	s.slots = s.slots[:len(s.slots)-len(extra)]
}

func (s *stage) note(what string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slowest[what] = max(s.slowest[what], took)
}

// wrongClock runs two processes whose clocks are off, one ahead and one behind, and has each of them lead.
func wrongClock(ctx context.Context, s *stage, d time.Duration) (int, error) {
	offsets := []time.Duration{8 * 24 * time.Hour, -8 * 24 * time.Hour}
	if s.long && s.rng.IntN(2) == 0 {
		offsets = []time.Duration{time.Hour, -time.Hour}
	}
	kept, err := s.kept(ctx)
	if err != nil {
		return 0, err
	}
	for _, slot := range s.slots[2:] {
		slot.rest()
	}
	for i, off := range offsets {
		if err := s.slots[i].restart(ctx, map[string]string{build.EnvClock: fmt.Sprint(int(off.Seconds()))}); err != nil {
			return i, err
		}
	}
	key := fmt.Sprintf("clock%d", s.rng.IntN(1<<30))
	for n := range 2 * len(offsets) {
		_ = s.trouble(ctx, "fail", 1, fmt.Sprintf("%s-%d", key, n))
	}
	failed := s.resumes(ctx, "clock", afterCrash)
	if leader, err := s.leader(ctx); err == nil {
		leader.kill()
	}
	failed = errors.Join(failed, s.resumes(ctx, "clock", afterCrash))
	sleep(ctx, d)
	for n := range 2 * len(offsets) {
		if err := s.attempted(ctx, fmt.Sprintf("%s-%d", key, n), 20*time.Second); err != nil {
			failed = errors.Join(failed, err)
			break
		}
	}
	for _, slot := range s.slots[2:] {
		slot.wake()
	}
	for i := range offsets {
		if err := s.slots[i].restart(ctx, map[string]string{build.EnvClock: "0"}); err != nil {
			return i + 1, errors.Join(failed, err)
		}
	}
	now, err := s.kept(ctx)
	if err == nil && now < kept {
		s.violations.add("clock: %d rows were kept before, and %d after", kept, now)
	}
	return len(offsets), errors.Join(failed, err)
}

// kept counts what nobody may clean up within the time of a run.
func (s *stage) kept(ctx context.Context) (int64, error) {
	return one[int64](ctx, s, `select (select count(*) from events) + (select count(*) from processed_events) + (select count(*) from discarded_jobs)
		+ (select count(*) from sessions) + (select count(*) from river_job where state in ('discarded', 'cancelled') and kind = 'outbox_deliver')`)
}

// attempted waits until the events of a key are settled at the consumer that fails.
func (s *stage) attempted(ctx context.Context, key string, bound time.Duration) error {
	return until(ctx, bound, "what failed is tried again", func() bool {
		n, err := one[int](ctx, s, "select count(*) from faults.effects where consumer = 'trouble' and key = $1", key)
		return err == nil && n > 0
	})
}
