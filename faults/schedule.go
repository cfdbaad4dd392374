package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// schedule is what is injected where, in which order. It comes from the seed alone.
type schedule struct {
	stages []act
	rng    *rand.Rand
	short  bool
}

// act is one stage of a run.
type act struct {
	where setting
	kinds []kind        // each once, in this order
	last  bool          // it comes when all others have ended
	then  []kind        // and then of these, at random, by weight, until the time is up
	lasts time.Duration // of all of it, at least
}

// newSchedule plays each setting once, in an order drawn from the seed, for a share of the time. The short form takes the kinds in
// their order, and first what takes longest.
func newSchedule(c command) *schedule {
	s := &schedule{rng: rand.New(rand.NewPCG(c.Seed, 0)), short: c.Short}
	wanted := func(ks []kind) []kind {
		if len(c.Only) == 0 {
			return ks
		}
		return slices.DeleteFunc(slices.Clone(ks), func(k kind) bool { return !slices.Contains(c.Only, k.name) })
	}
	shares := []struct {
		where setting
		share float64
	}{{alone, 0.7}, {pooled, 0.1}, {diskData, 0.05}, {pair, 0.1}, {diskWAL, 0.05}}
	for _, part := range shares {
		if c.Short {
			for _, with := range []company{lengthy, together, patient, prompt} {
				s.add(act{where: part.where, kinds: wanted(of(part.where, with)), last: with == prompt})
			}
			continue
		}
		ks := wanted(of(part.where, together, patient, lengthy, prompt))
		a := act{where: part.where, then: withWeight(ks, true), lasts: time.Duration(float64(c.For) * part.share)}
		switch {
		case c.Long:
			a.kinds = slices.Clone(ks)
			s.rng.Shuffle(len(ks), func(i, j int) { a.kinds[i], a.kinds[j] = a.kinds[j], a.kinds[i] })
		case len(c.Only) > 0:
			a.kinds = withWeight(ks, false)
		}
		s.add(a)
	}
	for _, k := range wanted(kinds) {
		if k.stage == single && (c.Long || len(c.Only) > 0) {
			s.add(act{where: k.in, kinds: []kind{k}})
		}
	}
	return s
}

// add adds a stage in which anything happens.
func (s *schedule) add(a act) {
	if len(a.kinds)+len(a.then) > 0 {
		s.stages = append(s.stages, a)
	}
}

// withWeight returns those kinds that are drawn, or those that are not: they come once, or not at all.
func withWeight(ks []kind, weight bool) []kind {
	return slices.DeleteFunc(slices.Clone(ks), func(k kind) bool { return k.weight > 0 != weight })
}

// draw takes one by weight, which each has.
func (s *schedule) draw(ks []kind) kind {
	total := 0
	for _, k := range ks {
		total += k.weight
	}
	at := s.rng.IntN(total)
	for _, k := range ks {
		if at -= k.weight; at < 0 {
			return k
		}
	}
	return ks[0]
}

// atOnce is how many stages of the short form are played at once: they wait more than they work.
const atOnce = 2

// runSchedule plays a schedule, one stage after the other; of the short form two at once, and then those that come last.
func runSchedule(ctx context.Context, o *options, s *schedule) (*report, error) {
	r := newReport(o.seed)
	limit := 1
	if s.short {
		limit = atOnce
	}
	for _, last := range []bool{false, true} {
		if err := runStages(ctx, o, s, r, last, limit); err != nil {
			return r, err
		}
	}
	return r, nil
}

// runStages plays those stages that come last, or those that do not.
func runStages(ctx context.Context, o *options, s *schedule, r *report, last bool, limit int) error {
	playing, ctx := errgroup.WithContext(ctx)
	playing.SetLimit(limit)
	for n := range s.stages {
		if s.stages[n].last != last {
			continue
		}
		playing.Go(func() error {
			if ctx.Err() != nil {
				return nil // another has failed
			}
			if err := playStage(ctx, o, s, s.stages[n], n, r); err != nil {
				return fmt.Errorf("stage %d, %s: %w", n+1, s.stages[n].where, err)
			}
			return nil
		})
	}
	return playing.Wait()
}

func playStage(ctx context.Context, o *options, sch *schedule, a act, n int, r *report) (err error) {
	began := time.Now()
	s, err := startStage(ctx, o, a.where, n, "")
	if err != nil {
		return err
	}
	defer s.close()
	o.say("stage %d: %s, %d processes\n", n+1, a.where, len(s.slots))
	customers, producers := s.load()
	s.startLoad(ctx, customers, producers, s.pace())
	if _, err := s.probe(ctx, afterCrash); err != nil {
		return fmt.Errorf("before any fault: %w", err)
	}
	s.producers.troubles.Store(true)
	for _, k := range a.kinds {
		s.soaked = s.soaked || k.name == "soak"
		if err := s.inject(ctx, k); err != nil {
			return err
		}
	}
	for hurting := time.Now(); len(a.then) > 0 && time.Since(hurting) < a.lasts; {
		if err := s.inject(ctx, sch.draw(a.then)); err != nil {
			return err
		}
	}
	s.producers.troubles.Store(false)
	s.stopLoad()
	if err := s.settle(ctx); err != nil {
		return err
	}
	v, err := s.judge(ctx)
	if err != nil {
		return fmt.Errorf("judge: %w", err)
	}
	s.errands.Wait()
	r.add(s, v, time.Since(began))
	s.keep = o.keep || v.bad() || len(s.violations.all()) > 0
	o.say("stage %d: %s\n", n+1, v.line(total(s.faults)))
	return nil
}

// inject hurts once. What does not come right within its bounds is a broken promise, and no end of the run.
func (s *stage) inject(ctx context.Context, k kind) error {
	d, began := k.lasts(s), time.Now()
	faults, err := k.do(ctx, s, d)
	s.mu.Lock()
	s.faults[k.name] += faults
	s.mu.Unlock()
	mark := ""
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		mark = "  ✗ " + err.Error()
		s.violations.add("%s: %v", k.name, err)
		if !errors.Is(err, errLate) {
			mark += " (the harness itself may have failed)"
		}
	}
	s.say("%7.1fs  %-20s %4d faults, %s%s\n", time.Since(s.began).Seconds(), k.name, faults, time.Since(began).Round(100*time.Millisecond), mark)
	return nil
}

func (o *options) say(format string, args ...any) { _, _ = fmt.Fprintf(o.said, format, args...) }

func total(faults map[string]int) int {
	n := 0
	for _, f := range faults {
		n += f
	}
	return n
}

// load is how many customers and producers there are at a time. A customer costs more: each hashes passwords.
func (s *stage) load() (customers, producers int) {
	if s.long {
		return 2, 3
	}
	return 1, 2
}

// pace is the pause between two transactions of a raw producer. In the short form, and on a small machine, the load is there to be
// hurt and not to hurt.
func (s *stage) pace() time.Duration {
	if s.long {
		return 80 * time.Millisecond
	}
	return 400 * time.Millisecond
}
