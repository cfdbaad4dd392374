package main

import (
	"context"
	"fmt"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// checkCommand is outbox check. It may run beside the service, and only reads; an incremental one remembers what it found in order.
type checkCommand struct {
	output
	Incremental bool `help:"Pass over the parts of the log that an earlier incremental check found in order and at rest, but for a tenth of them."`
}

// Run exits with 1 where something is wrong, and with 2 where nobody knows.
func (c checkCommand) Run(ctx context.Context) error {
	report, err := c.check(ctx)
	if err == nil {
		err = c.print(report, func(p *printer) { c.people(p, report) })
	}
	if err != nil {
		return exitError{err, exitUsage}
	}
	if n := len(report.Problems); n > 0 {
		return fmt.Errorf("check: %d problems", n)
	}
	return nil
}

func (c checkCommand) check(ctx context.Context) (report *outbox.CheckReport, err error) {
	b := c.bar()
	defer b.end()
	err = operate(ctx, func(o *outbox.Operator) error {
		report, err = o.CheckWith(ctx, outbox.CheckOptions{
			Incremental: c.Incremental, Progress: func(done, total int64) { b.draw(done, total, "positions") },
		})
		return err
	})
	return report, err
}

func (c checkCommand) people(p *printer, report *outbox.CheckReport) {
	p.line("%d events in the log (positions %d to %d), %d in the outbox", report.To-report.From, report.From+1, report.To, report.Outbox)
	if c.Incremental {
		p.line("%d of them looked at, the others were found in order before", report.Checked)
	}
	for _, problem := range report.Problems {
		p.line("%s  %s %s  %s", problem.Kind, problem.Consumer, problem.EventID, problem.Detail)
	}
	if len(report.Problems) == 0 {
		p.line("every event is in exactly one place for each of its consumers")
	}
}
