package main

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

var (
	seed = flag.Uint64("seed", 1, "what the short form draws from")
	only = flag.String("only", "", "kinds of faults, and no others: `kind,…`")
)

// said is where a run's lines go, while it runs: what a test has logged is seen at its end.
var said = os.Stdout

func prepared(t *testing.T) *options {
	t.Helper()
	o, end, err := prepare(t.Context(), *seed, false, said)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t.Failed()) })
	return o
}

// Every kind of fault once, in its short form. A promise that is not kept fails it.
func TestShortForm(t *testing.T) {
	o := prepared(t)
	c := command{Short: true, Seed: *seed}
	if *only != "" {
		c.Only = strings.Split(*only, ",")
	}
	if err := known(c.Only); err != nil {
		t.Fatal(err)
	}
	plan := newSchedule(c)
	r, err := runSchedule(t.Context(), o, plan)
	if err != nil {
		t.Fatal(err)
	}
	r.print(said)
	if !r.kept() {
		t.Errorf("a promise was not kept; what the run left is in %s", o.dir)
	}
	if missed := r.missed(); r.Faults["failpoint"] > 0 && len(missed) > 0 {
		t.Errorf("nobody died at %v", missed)
	}
	for _, a := range plan.stages {
		for _, k := range a.kinds {
			if r.Faults[k.name] == 0 {
				t.Errorf("no fault of the kind %s", k.name)
			}
		}
	}
}

// The harness has to see what is wrong where something is.
func TestControls(t *testing.T) {
	o := prepared(t)
	for control, caught := range map[string]func(verdict) bool{
		naiveRelay:   func(v verdict) bool { return v.Lost > 0 },
		noDedupe:     func(v verdict) bool { return v.Duplicated > 0 },
		asyncStandby: func(v verdict) bool { return v.Lost > 0 },
	} {
		t.Run(control, func(t *testing.T) {
			own := *o
			own.dir += "/" + control
			r, err := runControl(t.Context(), &own, control)
			if err != nil {
				t.Fatal(err)
			}
			r.print(said)
			if !caught(r.Verdict) {
				t.Errorf("it was not caught: %s", r.Verdict.line(0))
			}
		})
	}
}

// A seed gives the same schedule each time, and another seed another.
func TestScheduleComesFromTheSeed(t *testing.T) {
	drawn := func(seed uint64) (names string) {
		s := newSchedule(command{Long: true, For: time.Hour, Seed: seed})
		for _, a := range s.stages {
			for _, k := range a.kinds {
				names += k.name + " "
			}
			for range min(20, 20*len(a.then)) { // some stages have one fault each
				names += s.draw(a.then).name + " "
			}
		}
		return names
	}
	if first, again := drawn(7), drawn(7); first != again {
		t.Error("one seed gave two schedules")
	}
	if drawn(7) == drawn(8) {
		t.Error("two seeds gave one schedule")
	}
}

// What the long form says of a kind it has seen at its full length, whatever is drawn later.
func TestFirstTurnOfTheLongFormIsWhole(t *testing.T) {
	for _, k := range kinds {
		s := &stage{options: &options{long: true}, rng: rand.New(rand.NewPCG(1, 0)), faults: map[string]int{}}
		if d := k.lasts(s); d != k.long {
			t.Errorf("%s lasts %s of %s", k.name, d, k.long)
		}
		s.faults[k.name]++
		if d := k.lasts(s); d > k.long || d < min(2*time.Second, k.long) {
			t.Errorf("%s then lasts %s of %s", k.name, d, k.long)
		}
		s.long = false
		if d := k.lasts(s); d != k.short {
			t.Errorf("%s lasts %s of %s in the short form", k.name, d, k.short)
		}
	}
}

// A kind without weight takes long: it comes once, in the long form or when it is asked for, and is not drawn after that.
func TestKindWithoutWeightComesOnce(t *testing.T) {
	for _, c := range []command{{Long: true, Only: []string{"snapshot"}}, {Only: []string{"snapshot"}}} {
		c.For = time.Hour
		stages := newSchedule(c).stages
		if len(stages) != 1 || len(stages[0].kinds) != 1 || len(stages[0].then) != 0 {
			t.Errorf("%+v: %+v", c, stages)
		}
	}
	for _, a := range newSchedule(command{For: time.Hour}).stages {
		for _, k := range append(a.kinds, a.then...) {
			if k.name == "snapshot" {
				t.Errorf("it was not asked for: %+v", a)
			}
		}
	}
}

// What is acknowledged is on disk, and in the order in which it was asked for; many share an fsync.
func TestJournal(t *testing.T) {
	path := t.TempDir() + "/journal"
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 50)
	for i := range cap(done) {
		go func() { done <- j.acknowledge(entry{kind: "k", correlation: fmt.Sprint(i)}) }()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(raw, []byte{'\n'}); n != 50 || j.acknowledged() != 50 {
		t.Errorf("%d lines on disk, %d acknowledged", n, j.acknowledged())
	}
	if err := j.close(); err != nil {
		t.Error(err)
	}
}
