package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/faultkit"
)

// killAtFailpoints has processes die at points of which every process is armed with all that are left. That is each point there is;
// when the kind is drawn again, and in a soak, a few, those first at which fewest have died.
func killAtFailpoints(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	points, bound := s.pointsDue(), 5*time.Minute // it ends with the last of them
	if s.overlapping.Load() || s.long && !s.firstTurn("failpoint") {
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
		s.mu.Lock()
		s.hits[string(p)]++
		s.mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		if left[p] {
			hits++
		}
		if delete(left, p); len(left) == 0 {
			end()
		}
	}
	var work sync.WaitGroup
	for i, slot := range s.slots {
		rng := rand.New(rand.NewPCG(s.seed, s.rng.Uint64()))
		work.Go(func() {
			for visiting.Err() == nil {
				p := s.dieAt(visiting, slot, rng, share(open(), i, len(s.slots)))
				if p == "" {
					continue
				}
				if died(p); visiting.Err() == nil {
					for _, other := range s.slots { // one is enough
						_ = other.disarm(visiting, p)
					}
				}
			}
			_ = slot.disarm(ctx)
		})
	}
	work.Go(func() {
		for round := 0; sleep(visiting, 700*time.Millisecond); round++ {
			s.bury(visiting)
			s.lead(visiting, open(), round)
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

// fewPoints are so few that any process may die at any of them: two that die at the same one cost less than the wait for the one whose part
// it is.
const fewPoints = 12

// share are the points that one of so many processes is to die at: its part of them, lest all die at the same ones; those that one
// process passes, which may be any; and, where its part is done or few are left, all.
func share(points []failpoint.Point, i, n int) []failpoint.Point {
	if len(points) <= fewPoints {
		return points
	}
	own := slices.DeleteFunc(slices.Clone(points), func(p failpoint.Point) bool {
		return slices.Index(failpoint.All(), p)%n != i
	})
	if len(own) == 0 {
		return points
	}
	for _, p := range points {
		part, _, _ := strings.Cut(string(p), ".")
		rare := slices.Contains([]string{"relay", "rescue", "reconcile", "retention", "operation"}, part) ||
			slices.Contains([]failpoint.Point{failpoint.DrainEscalate, failpoint.DrainTry, failpoint.DrainTaken, failpoint.DrainNext}, p)
		if rare && !slices.Contains(own, p) {
			own = append(own, p)
		}
	}
	return own
}

// armed are the processes with the one first that is to die at the first of the points with the prefix.
func (s *stage) armed(points []failpoint.Point, prefix string) []*slot {
	for i, p := range failpoint.All() {
		if strings.HasPrefix(string(p), prefix) && slices.Contains(points, p) {
			n := i % len(s.slots)
			return append(slices.Clone(s.slots[n:]), s.slots[:n]...)
		}
	}
	return s.slots
}

// dieAt arms a process, waits until it is dead, and returns where that was: nowhere, if it died of something else.
func (s *stage) dieAt(ctx context.Context, slot *slot, rng *rand.Rand, points []failpoint.Point) failpoint.Point {
	if slot.awaitServe(ctx) != nil {
		return ""
	}
	ended, _ := slot.present()
	from := slot.logSize()
	nth := 1
	if s.long {
		nth += rng.IntN(2)
	}
	_ = slot.arm(ctx, nth, "kill", points...) // it may have died already
	select {
	case <-ended:
	case <-ctx.Done():
		return ""
	}
	return diedAt(slot, from)
}

// diedAt is where the process died that has written the log from there on.
func diedAt(slot *slot, from int64) failpoint.Point {
	for line := range strings.Lines(tailOf(slot.logs, from)) {
		if _, at, ok := strings.Cut(line, failpoint.DiesAt); ok {
			return failpoint.Point(strings.TrimSpace(at))
		}
	}
	return ""
}

// bury has a relay that is silent for longer than a living one counted as dead at once, and not after the seconds that the service gives it:
// half of the points are in the process that leads, and each visit would take them.
func (s *stage) bury(ctx context.Context) {
	_, _ = s.direct.Exec(ctx, `with dead as (
			update relay_state set beat_at = beat_at - interval '1 minute'
			where beat_at between clock_timestamp() - interval '30 seconds' and clock_timestamp() - interval '1500 milliseconds' returning true)
		update river_job set attempted_at = attempted_at - interval '1 minute' where kind = 'outbox_relay' and state = 'running' and exists (select from dead)`)
}

// lead makes happen what passes those points that ordinary traffic does not pass, or not often.
func (s *stage) lead(ctx context.Context, points []failpoint.Point, round int) {
	among := func(every int, prefixes ...string) bool {
		return round%every == 0 && slices.ContainsFunc(points, func(p failpoint.Point) bool {
			return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(string(p), prefix) })
		})
	}
	for _, action := range []string{"replay", "dismiss"} {
		if among(2, action) {
			_ = s.trouble(ctx, "permanent", 1, fmt.Sprintf("letter-%s%d", action, round))
			s.errands.Go(func() { s.operateLetter(ctx, s.armed(points, action), action) })
		}
	}
	if among(2, "operation.") {
		_ = s.trouble(ctx, "permanent", 1, fmt.Sprintf("letter-operation%d", round))
		s.errands.Go(func() { s.replayKey(ctx, s.armed(points, "operation.begin.")) })
	}
	// While a backfill runs, its consumer keeps the log: retention comes first, for a while.
	if among(4, "backfill.") && (round > 60 || !among(1, "retention.partition")) {
		s.errands.Go(func() {
			_ = s.operate(ctx, s.armed(points, "backfill.")[0], "POST", "/admin/consumers/billing/backfill", `{"from":"beginning","reason":"the harness runs it again"}`)
		})
	}
	if among(1, "drain.park", "drain.hold", "drain.release", "deliver.") {
		key := fmt.Sprintf("parked%d", round)
		_ = s.trouble(ctx, "fail", 2, key)
		_ = s.trouble(ctx, "apply", 0, key)
	}
	if among(10, "drain.next") {
		for range 6 { // more than a drain's turn
			s.slow(ctx, "slow", 1, 400)
		}
	}
	if among(12, "drain.escalate", "drain.try") {
		_, _ = s.crash(ctx, 4)
	}
	if among(1, "rescue.") {
		// As if the process that runs a delivery had died long ago: one that takes its time is among them.
		if round%6 == 0 {
			s.slow(ctx, fmt.Sprintf("rescued%d", round), 2, 5000)
		}
		_, _ = s.direct.Exec(ctx, `update river_job set attempted_at = attempted_at - interval '5 minutes' where kind = 'outbox_deliver' and state = 'running'`)
	}
	if among(1, "reconcile.") {
		// A job that is gone, and a trigger that has not seen it go.
		if round%4 == 0 {
			_ = s.trouble(ctx, "fail", 2, fmt.Sprintf("lostjob%d", round))
		}
		_, _ = s.direct.Exec(ctx, `begin; set local session_replication_role = replica; delete from river_job where id in
			(select id from river_job where kind = 'outbox_deliver' and state in ('retryable', 'scheduled', 'available') limit 1 for update skip locked); commit`)
	}
	if among(8, "relay.lead") {
		if leader, err := s.leader(ctx); err == nil {
			leader.kill()
		}
	}
	if among(1, "relay.due") {
		_, _ = s.direct.Exec(ctx, "select outbox_append('fault.later', 'later', '{}', not_before => clock_timestamp() + interval '1 second')")
	}
	if among(8, "relay.partitions") {
		s.errands.Go(func() { s.dropAhead(ctx) })
	}
	if among(3, "relay.quarantine") {
		// A key that is in it passes the point no more, and a process may be due at its second passage. What is on its way there goes on.
		_ = s.exec(ctx, "delete from quarantine where key = 'refused'")
		s.quarantine(ctx)
	}
	if among(3, "retention.") {
		s.age(ctx)
	}
}

// slow appends an event that takes its time, in so many runs.
func (s *stage) slow(ctx context.Context, key string, times, ms int) {
	_, _ = s.direct.Exec(ctx, "select faults.append($1, $2, jsonb_build_object('do', 'slow', 'times', $3::int, 'ms', $4::int))", faultkit.Trouble, key, times, ms)
}

// replayKey begins the replay of all letters of a key that was made for that, at the first of the processes that does it.
func (s *stage) replayKey(ctx context.Context, at []*slot) {
	key, err := one[string](ctx, s, "select coalesce(min(key), '') from discarded_jobs where state = 'dead' and key like 'letter-operation%'")
	if err != nil || key == "" {
		return
	}
	for _, slot := range at {
		if s.operate(ctx, slot, "POST", "/admin/dlq/replay", fmt.Sprintf(`{"filter":{"key":%q},"reason":"the harness"}`, key)) == nil {
			return
		}
	}
}

// operateLetter replays or dismisses a dead letter, where there is one and at the first of the processes that does it.
func (s *stage) operateLetter(ctx context.Context, at []*slot, action string) {
	id, err := one[int64](ctx, s, "select coalesce(min(id), 0) from discarded_jobs where state = 'dead' and key like $1", "letter-"+action+"%")
	if err != nil || id == 0 {
		return
	}
	for _, slot := range at {
		if s.operate(ctx, slot, "POST", fmt.Sprintf("/admin/dlq/%d/%s", id, action), `{"reason":"the harness"}`) == nil {
			return
		}
	}
}
