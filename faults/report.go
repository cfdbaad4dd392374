package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
)

// report is what a run has to say.
type report struct {
	mu sync.Mutex

	Seed    uint64        `json:"seed"`
	Took    time.Duration `json:"took_ns"`
	Verdict verdict       `json:"verdict"`
	// Faults and Slowest are by kind: how many were injected, and how long it took at most until work went on.
	Faults  map[string]int           `json:"faults"`
	Slowest map[string]time.Duration `json:"slowest_ns"`
	// Hits are the failpoints at which a process died.
	Hits map[string]int `json:"failpoints"`
	// Ratios are what was measured, the worst of each.
	Ratios map[string]float64 `json:"ratios,omitempty"`
	// Unknown are transactions whose outcome a client did not learn at once, Refused answers of 503.
	Unknown int64 `json:"unknown_outcomes"`
	Refused int64 `json:"answers_503"`
	// Violations are promises that were broken beyond the four counts.
	Violations []string `json:"violations,omitempty"`
}

func newReport(seed uint64) *report {
	return &report{Seed: seed, Faults: map[string]int{}, Slowest: map[string]time.Duration{}, Hits: map[string]int{}, Ratios: map[string]float64{}}
}

func (r *report) add(s *stage, v verdict, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Took += took
	r.Verdict.add(v)
	for name, n := range s.faults {
		r.Faults[name] += n
	}
	for name, d := range s.slowest {
		r.Slowest[name] = max(r.Slowest[name], d)
	}
	for name, n := range s.hits {
		r.Hits[name] += n
	}
	maps.Copy(r.Ratios, s.ratios)
	r.Unknown += s.producers.unknown.Load()
	r.Refused += s.customers.unready.Load() + int64(s.refused)
	r.Violations = append(r.Violations, s.violations.all()...)
	if n := s.customers.noRetry.Load(); n > 0 {
		r.Violations = append(r.Violations, fmt.Sprintf("%d answers of 503 had no Retry-After", n))
	}
}

// kept reports whether every promise was.
func (r *report) kept() bool { return !r.Verdict.bad() && len(r.Violations) == 0 }

// missed are the failpoints at which nobody died.
func (r *report) missed() []failpoint.Point {
	return slices.DeleteFunc(slices.Clone(failpoint.All()), func(p failpoint.Point) bool { return r.Hits[string(p)] > 0 })
}

func (r *report) print(w io.Writer) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	say("\n%-22s %7s  %s\n", "kind", "faults", "work went on after, at most")
	for _, k := range kinds {
		if n, ok := r.Faults[k.name]; ok {
			say("%-22s %7d  %s\n", k.name, n, r.Slowest[k.name].Round(10*time.Millisecond))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Slowest)) {
		if !slices.ContainsFunc(kinds, func(k kind) bool { return k.name == name }) {
			say("  %-28s  %s\n", name, r.Slowest[name].Round(10*time.Millisecond))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Ratios)) {
		say("%s: %.2f\n", name, r.Ratios[name])
	}
	say("failpoints at which a process died: %d of %d", len(r.Hits), len(failpoint.All()))
	if missed := r.missed(); len(missed) > 0 && len(r.Hits) > 0 {
		say("; not at %v", missed)
	}
	say("\n%d effects, %d outcomes unknown at first, %d answers of 503, seed %d, %s\n", r.Verdict.Effects, r.Unknown, r.Refused, r.Seed, r.Took.Round(time.Second))
	for _, found := range r.Verdict.Found {
		say("✗ %s\n", found)
	}
	for _, violation := range r.Violations {
		say("✗ %s\n", violation)
	}
	say("%s\n", r.Verdict.line(total(r.Faults)))
}

// line is what a run ends with.
func (v verdict) line(faults int) string {
	return fmt.Sprintf("acked %d faults %d lost %d duplicated %d misordered %d stuck %d", v.Acknowledged, faults, v.Lost, v.Duplicated, v.Misordered, v.Stuck)
}
