// Command bench measures pgoutbox beside other systems on one PostgreSQL; see README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type options struct {
	Quick       bool           `help:"Small sizes, ends within four minutes. The default." xor:"size"`
	Full        bool           `help:"Full sizes and more rounds; takes what it needs." xor:"size"`
	JSON        string         `help:"Write the results to this file." type:"path" placeholder:"FILE"`
	Only        *regexp.Regexp `help:"Run only the cases of which a name matches." placeholder:"REGEXP"`
	Rounds      int            `help:"Run every case this often, whatever time it takes." placeholder:"N"`
	DatabaseURL string         `help:"Use this server, as a user who may create databases and checkpoint, and not a private one." placeholder:"URL"`
	Dir         string         `help:"Where the private server keeps its data while it runs; should be a disk. Default: the folder for temporary files." type:"existingdir" placeholder:"DIR"`
	CPUProfile  string         `help:"Write a CPU profile of this process to this file." name:"cpuprofile" type:"path" placeholder:"FILE"`
	List        bool           `help:"List the names and what they measure."`

	Run     struct{}   `cmd:"" default:"1" hidden:"" help:"Run the bench."`
	Service serviceCmd `cmd:"" hidden:"" help:"The service that the backlog case starts as a process of its own."`
}

func main() {
	var o options
	parsed := kong.Parse(&o, kong.Name("bench"), kong.Description("Measures pgoutbox beside other systems on one PostgreSQL."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if parsed.Command() == "service" {
		err = o.Service.run(ctx)
	} else {
		err = o.run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o options) run(ctx context.Context) (err error) {
	p := plan{size: quickSize, only: o.Only, rounds: o.Rounds}
	if o.Full {
		p.size = fullSize
	}
	if o.List {
		return listCases(os.Stdout)
	}
	if len(p.cases()) == 0 {
		return fmt.Errorf("no name matches %s; --list shows them", o.Only)
	}
	if o.CPUProfile != "" {
		stop, err := profile(o.CPUProfile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}

	begun := time.Now()
	s, err := startServer(ctx, o.Dir, o.DatabaseURL)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	results, failures := p.run(ctx, s, begun)
	err = errors.Join(err, s.stop())
	results.print(os.Stdout)
	if o.JSON != "" {
		err = errors.Join(err, results.write(o.JSON))
	}
	fmt.Printf("\n%s on %s in %s\n", p.size.name, results.server, time.Since(begun).Round(time.Second))
	return errors.Join(append(failures, err)...)
}

func profile(path string) (stop func() error, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
