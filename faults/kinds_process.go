package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

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

// zombies stops processes in the middle of their work, the leader among them, for longer than anybody waits for them, and lets them
// go on.
func zombies(ctx context.Context, s *stage, d time.Duration) (int, error) {
	leader, err := s.leader(ctx)
	if err != nil {
		return 0, err
	}
	points := []failpoint.Point{failpoint.DrainCommitBefore, failpoint.DeliverCommitBefore}
	standing := s.slots[:processes]
	defer func() {
		for _, slot := range standing { // whatever went wrong
			slot.signal(syscall.SIGCONT)
		}
	}()
	for _, slot := range standing {
		if err := slot.awaitServe(ctx); err != nil {
			return 0, err
		}
		p := failpoint.RelayClaimBefore
		if slot != leader {
			p, points = points[0], points[1:]
		}
		// It may stop before it has answered.
		if err := slot.arm(ctx, 1, "stop", p); err != nil && !slot.standsStill() {
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
		s.bury(ctx) // that another leads in time is seen elsewhere
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots = s.slots[:len(s.slots)-len(extra)]
}

func (s *stage) note(what string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slowest[what] = max(s.slowest[what], took)
}

// wrongClock runs two processes whose clocks are off by eight days, one ahead and one behind, and has each of them lead; in the long form
// then by an hour.
func wrongClock(ctx context.Context, s *stage, d time.Duration) (faults int, err error) {
	far := []time.Duration{8 * 24 * time.Hour}
	if s.long {
		far = append(far, time.Hour)
	}
	for _, off := range far {
		n, failed := s.clocksOff(ctx, d, []time.Duration{off, -off})
		if faults += n; failed != nil {
			return faults, fmt.Errorf("%s off: %w", off, failed)
		}
	}
	return faults, nil
}

func (s *stage) clocksOff(ctx context.Context, d time.Duration, offsets []time.Duration) (int, error) {
	kept, err := s.kept(ctx)
	if err != nil {
		return 0, err
	}
	for _, slot := range s.slots[2:] {
		slot.rest()
	}
	defer func() {
		for _, slot := range s.slots[2:] { // whatever goes wrong
			slot.wake()
		}
	}()
	if err := s.restartAt(ctx, offsets); err != nil {
		return 0, err
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
	if err := s.restartAt(ctx, make([]time.Duration, len(offsets))); err != nil {
		return len(offsets), errors.Join(failed, err)
	}
	now, err := s.kept(ctx)
	if err == nil && now < kept {
		s.violations.add("clock: %d rows were kept before, and %d after", kept, now)
	}
	return len(offsets), errors.Join(failed, err)
}

// restartAt starts the first processes anew with their clocks so far off.
func (s *stage) restartAt(ctx context.Context, offsets []time.Duration) error {
	all, ctx := errgroup.WithContext(ctx)
	for i, off := range offsets {
		all.Go(func() error {
			return s.slots[i].restart(ctx, map[string]string{build.EnvClock: strconv.Itoa(int(off.Seconds()))})
		})
	}
	return all.Wait()
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
