// Command faults attacks a whole installation of pgoutbox and proves that it keeps its promises: it starts PostgreSQL servers and
// processes of the service's real binary, has clients sign up, check out and append events through TCP proxies, injects faults
// from a seeded schedule, lets everything come to rest, and then judges by what the clients were told and by what is there.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgoutbox/pgoutbox/faults/build"
	"github.com/pgoutbox/pgoutbox/faults/cluster"
)

// command is what the command line asks for.
type command struct {
	For     time.Duration
	Seed    uint64
	Only    []string // kinds of faults; empty: all
	Short   bool
	Long    bool
	Control string
	List    bool
	JSON    string
	// Checkouts is how many the kind money makes; 0: as many as the form has.
	Checkouts int
	Keep      bool
}

func parse(args []string) (c command, err error) {
	f := flag.NewFlagSet("faults", flag.ContinueOnError)
	f.DurationVar(&c.For, "for", time.Minute, "how long faults are injected; what is healed then comes to rest, and is judged")
	f.Uint64Var(&c.Seed, "seed", 1, "what the schedule, the load and the proxies draw from; a run that fails is played again with it")
	only := f.String("only", "", "kinds of faults to inject, and no others: `kind,…` (see -list)")
	f.BoolVar(&c.Short, "short", false, "the short form: every kind once, with short durations, whatever -for says")
	f.BoolVar(&c.Long, "long", false, "the long form: long durations, every kind once and then at random, also those that only the long form has")
	f.StringVar(&c.Control, "control", "", "run against something that is wrong on purpose, and must be found out: `naive-relay`, no-dedupe or async-standby")
	f.BoolVar(&c.List, "list", false, "list the kinds of faults")
	f.IntVar(&c.Checkouts, "checkouts", 0, "how many checkouts the kind money makes; 0: 40, and 1,000 in the long form")
	f.StringVar(&c.JSON, "json", "", "also write the report to this `file`, as JSON")
	f.BoolVar(&c.Keep, "keep", false, "keep what the run left: logs, journal, report")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if *only != "" {
		c.Only = strings.Split(*only, ",")
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("%w: %s", errUsage, f.Arg(0))
	case c.Short && c.Long:
		return c, fmt.Errorf("%w: -short and -long", errUsage)
	case c.Checkouts < 0:
		return c, fmt.Errorf("%w: -checkouts must be above 0", errUsage)
	case c.For <= 0:
		return c, fmt.Errorf("%w: -for must be above 0", errUsage)
	case c.Control != "" && controls[c.Control] == nil:
		return c, fmt.Errorf("%w: -control must be one of %v", errUsage, slices.Sorted(maps.Keys(controls)))
	}
	return c, known(c.Only)
}

// options are what all stages of a run share.
type options struct {
	dir    string // a folder that the server's user can pass through
	binary string
	// template is what a stage's server begins with a copy of.
	template *cluster.Server
	seed     uint64
	long     bool
	keep     bool
	said     io.Writer
	kinds    []kind        // all that there are, for those that are made of others
	lasts    time.Duration // of a soak that is not in the long form
	// checkouts is how many the kind money makes, where that was said.
	checkouts int
}

func main() {
	c, err := parse(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "faults:", err)
		}
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := c.run(ctx)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(2)
	case !ok:
		os.Exit(1)
	}
}

// run reports whether every promise was kept.
func (c command) run(ctx context.Context) (ok bool, err error) {
	if c.List {
		for _, k := range kinds {
			form := ""
			if k.stage == single {
				form = " (long form)"
			}
			fmt.Printf("%-20s %s%s\n", k.name, k.doc, form)
		}
		return true, nil
	}
	o, end, err := prepare(ctx, c.Seed, c.Long, os.Stdout)
	if err != nil {
		return false, err
	}
	o.keep, o.lasts, o.checkouts = c.Keep, c.For, c.Checkouts
	defer func() {
		if c.Keep || err != nil || !ok {
			fmt.Println("kept:", o.dir)
		}
		end(c.Keep || err != nil || !ok)
	}()
	var r *report
	switch {
	case c.Control != "":
		r, err = runControl(ctx, o, c.Control)
	default:
		r, err = runSchedule(ctx, o, newSchedule(c))
	}
	if err != nil {
		return false, err
	}
	if c.JSON != "" {
		raw, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = os.WriteFile(c.JSON, append(raw, '\n'), 0o644)
		}
		if err != nil {
			return false, err
		}
	}
	r.print(os.Stdout)
	return r.kept(), nil
}

// prepare builds the binary and makes the run's folder.
func prepare(ctx context.Context, seed uint64, long bool, said io.Writer) (o *options, end func(keep bool), err error) {
	dir, err := os.MkdirTemp("", "pgoutbox-faults-")
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil { // the server runs as another user
		return nil, nil, err
	}
	binary, err := build.Service(ctx, dir)
	if err != nil {
		return nil, nil, fmt.Errorf("build the service: %w", err)
	}
	template, err := makeTemplate(ctx, dir, binary)
	if err != nil {
		return nil, nil, err
	}
	end = func(keep bool) {
		_ = template.Close()
		if !keep {
			_ = os.RemoveAll(dir)
		}
	}
	return &options{dir: dir, binary: binary, template: template, seed: seed, long: long, said: said, kinds: kinds}, end, nil
}

var (
	errUsage       = errors.New("usage")
	errUnknownKind = errors.New("no such kind of fault")
)

func known(names []string) error {
	for _, name := range names {
		found := false
		for _, k := range kinds {
			found = found || k.name == name
		}
		if !found {
			return fmt.Errorf("%w: %s (see -list)", errUnknownKind, strings.TrimSpace(name))
		}
	}
	return nil
}
