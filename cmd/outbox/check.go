package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// checkPatience is after how long, and how often from then on, a check says how far it is.
const checkPatience = 3 * time.Second

// checkCommand is outbox check. It may run beside the service, and only reads; an incremental one remembers what it found in order.
type checkCommand struct {
	Incremental bool `help:"Pass over the parts of the log that an earlier incremental check found in order and at rest, but for a tenth of them."`
	JSON        bool `help:"Print the report as JSON."`
}

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// Run exits with 1 where something is wrong, and with 2 where nobody knows.
func (c checkCommand) Run(ctx context.Context) error {
	report, err := c.check(ctx)
	if err != nil {
		return exitError{err, 2}
	}
	if c.JSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		err = out.Encode(report)
	} else {
		err = c.print(report)
	}
	if err != nil {
		return exitError{err, 2}
	}
	if n := len(report.Problems); n > 0 {
		return fmt.Errorf("check: %d problems", n)
	}
	return nil
}

func (c checkCommand) check(ctx context.Context) (report *outbox.CheckReport, err error) {
	said := time.Now()
	err = operate(ctx, func(o *outbox.Operator) error {
		report, err = o.CheckWith(ctx, outbox.CheckOptions{
			Incremental: c.Incremental,
			Progress: func(done, total int64) {
				if time.Since(said) >= checkPatience && done < total {
					said = time.Now()
					fmt.Fprintf(os.Stderr, "outbox: check: %d of %d positions\n", done, total)
				}
			},
		})
		return err
	})
	return report, err
}

func (c checkCommand) print(report *outbox.CheckReport) error {
	_, err := fmt.Printf("%d events in the log (positions %d to %d), %d in the outbox\n", report.To-report.From, report.From+1, report.To, report.Outbox)
	if c.Incremental {
		_, also := fmt.Printf("%d of them looked at, the others were found in order before\n", report.Checked)
		err = errors.Join(err, also)
	}
	for _, p := range report.Problems {
		_, also := fmt.Printf("%s  %s %s  %s\n", p.Kind, p.Consumer, p.EventID, p.Detail)
		err = errors.Join(err, also)
	}
	if len(report.Problems) == 0 {
		_, also := fmt.Println("every event is in exactly one place for each of its consumers")
		err = errors.Join(err, also)
	}
	return err
}
