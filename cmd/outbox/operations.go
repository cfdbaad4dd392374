package main

import (
	"context"
	"time"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// operationsCommand is outbox operations. It works on the database; the operations themselves run in the service's workers.
type operationsCommand struct {
	Ls   operationsLs   `cmd:"" default:"withargs" help:"The operations, the newest first. The default."`
	Show operationsShow `cmd:"" help:"One operation: its groups, and the letters that did not go well."`
	Stop operationsStop `cmd:"" help:"Send no further letter. What is in flight goes on."`
}

type operationsLs struct {
	output
	listing
}

func (c operationsLs) Run(ctx context.Context) error {
	before, err := c.before()
	if err != nil {
		return err
	}
	return operate(ctx, func(o *outbox.Operator) error {
		read, err := o.Operations(ctx, before, c.Limit+1)
		if err != nil {
			return err
		}
		all := handlers.OperationPage(read, c.Limit)
		t := table("ID", "BEGUN", "KIND", "STATE", "LETTERS", "SUCCEEDED", "FAILED", "SKIPPED", "IN FLIGHT", "BY", "REASON")
		for _, op := range all.Items {
			t.row(op.ID, op.CreatedAt.Format(time.DateTime), op.Kind, op.State, op.Total, op.Succeeded, op.FailedAgain, op.Skipped, op.InFlight,
				op.Actor, firstLine(op.Reason))
		}
		return c.print(all, func(p *printer) {
			p.table(t)
			p.more(all.NextCursor)
		})
	})
}

type operationsShow struct {
	output
	ID     int64 `arg:"" help:"The operation's number."`
	Follow bool  `help:"Wait for its end."`
}

func (c operationsShow) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		op, err := o.Operation(ctx, c.ID)
		if err == nil && c.Follow {
			op, err = c.followOperation(ctx, o, c.ID)
		}
		if err != nil {
			return err
		}
		return c.print(op, func(p *printer) { printOperation(p, op) })
	})
}

type operationsStop struct {
	by
	output
	ID int64 `arg:"" help:"The operation's number."`
}

func (c operationsStop) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		op, err := o.StopOperation(ctx, c.ID, c.action(false))
		if err != nil {
			return err
		}
		return c.print(op, func(p *printer) {
			p.line("operation %d is stopped: %d of %d letters were replayed", op.ID, op.Replayed, op.Total)
		})
	})
}

func printOperation(p *printer, op *outbox.OperationDetail) {
	p.line("operation %d, %s by %s: %s", op.ID, op.Kind, op.Actor, op.State)
	if op.Stopped != "" {
		p.line("stopped: %s", op.Stopped)
	}
	p.line("reason: %s", op.Reason)
	p.line("%d letters: %d succeeded, %d failed again, %d skipped, %d in flight, %d not sent",
		op.Total, op.Succeeded, op.FailedAgain, op.Skipped, op.InFlight, op.Total-op.Replayed-op.Skipped)
	t := table("LETTERS", "CONSUMER", "STATE", "FINGERPRINT", "CAUSE")
	for _, g := range op.Groups {
		t.row(g.Letters, g.Consumer, g.State, g.Fingerprint, g.Error)
	}
	p.table(t)
	if len(op.Trouble) == 0 {
		return
	}
	t = table("LETTER", "OUTCOME", "WHY")
	for _, l := range op.Trouble {
		t.row(l.ID, l.State, firstLine(l.Error))
	}
	p.table(t)
}

// auditCommand is outbox audit.
type auditCommand struct {
	output
	Who    string `name:"by" help:"Only what somebody did."`
	Action string `help:"Only what was done so: replay, rehearse, dismiss, replay all, stop, pause and so on."`
	Target string `help:"Only what was done to this, like \"dead letter 7\" or \"operation 2\"."`
	listing
}

func (c auditCommand) Run(ctx context.Context) error {
	before, err := c.before()
	if err != nil {
		return err
	}
	return operate(ctx, func(o *outbox.Operator) error {
		read, err := o.Audit(ctx, outbox.AuditFilter{Actor: c.Who, Action: c.Action, Target: c.Target}, before, c.Limit+1)
		if err != nil {
			return err
		}
		all := handlers.AuditPage(read, c.Limit)
		t := table("AT", "BY", "ACTION", "TARGET", "REASON")
		for _, e := range all.Items {
			t.row(e.At.Format(time.DateTime), e.Actor, e.Action, e.Target, firstLine(e.Reason))
		}
		return c.print(all, func(p *printer) {
			p.table(t)
			p.more(all.NextCursor)
		})
	})
}
