package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// operationsCommand is outbox operations. It works on the database; the operations themselves run in the service's workers.
type operationsCommand struct {
	Ls   operationsLs   `cmd:"" default:"withargs" help:"The operations, the newest first. The default."`
	Show operationsShow `cmd:"" help:"One operation: its groups, and the letters that did not go well."`
	Stop operationsStop `cmd:"" help:"Send no further letter. What is in flight goes on."`
}

type operationsLs struct {
	Limit int  `default:"20" help:"How many at most. Default: 20."`
	JSON  bool `help:"Print the operations as JSON, one a line."`
}

func (c operationsLs) Run(ctx context.Context) error {
	if c.Limit < 1 {
		return fmt.Errorf("--limit must be 1 or more, and is %d", c.Limit)
	}
	return operate(ctx, func(o *outbox.Operator) error {
		all, err := o.Operations(ctx, 0, c.Limit)
		if err != nil {
			return err
		}
		if c.JSON {
			return printLines(os.Stdout, all)
		}
		t := table("ID", "BEGUN", "KIND", "STATE", "LETTERS", "SUCCEEDED", "FAILED", "SKIPPED", "IN FLIGHT", "BY", "REASON")
		for _, op := range all {
			t.row(op.ID, op.CreatedAt.Format(time.DateTime), op.Kind, op.State, op.Total, op.Succeeded, op.FailedAgain, op.Skipped, op.InFlight,
				op.Actor, firstLine(op.Reason))
		}
		return t.print(os.Stdout)
	})
}

type operationsShow struct {
	ID     int64 `arg:"" help:"The operation's number."`
	Follow bool  `help:"Wait for its end."`
	JSON   bool  `help:"Print the operation as JSON."`
}

func (c operationsShow) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		op, err := o.Operation(ctx, c.ID)
		if err == nil && c.Follow {
			op, err = follow(ctx, o, c.ID)
		}
		switch {
		case err != nil:
			return err
		case c.JSON:
			return printLines(os.Stdout, []*outbox.OperationDetail{op})
		}
		return printOperation(op)
	})
}

type operationsStop struct {
	by
	ID int64 `arg:"" help:"The operation's number."`
}

func (c operationsStop) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		op, err := o.StopOperation(ctx, c.ID, c.action(false))
		if err == nil {
			fmt.Printf("operation %d is stopped: %d of %d letters were replayed\n", op.ID, op.Replayed, op.Total)
		}
		return err
	})
}

func printOperation(op *outbox.OperationDetail) error {
	fmt.Printf("operation %d, %s by %s: %s\n", op.ID, op.Kind, printable(op.Actor), op.State)
	if op.Stopped != "" {
		fmt.Printf("stopped: %s\n", printable(op.Stopped))
	}
	fmt.Printf("reason: %s\n", printable(op.Reason))
	fmt.Printf("%d letters: %d succeeded, %d failed again, %d skipped, %d in flight, %d not sent\n",
		op.Total, op.Succeeded, op.FailedAgain, op.Skipped, op.InFlight, op.Total-op.Replayed-op.Skipped)
	t := table("LETTERS", "CONSUMER", "STATE", "FINGERPRINT", "CAUSE")
	for _, g := range op.Groups {
		t.row(g.Letters, g.Consumer, g.State, g.Fingerprint, g.Error)
	}
	if err := t.print(os.Stdout); err != nil || len(op.Trouble) == 0 {
		return err
	}
	t = table("LETTER", "OUTCOME", "WHY")
	for _, l := range op.Trouble {
		t.row(l.ID, l.State, firstLine(l.Error))
	}
	return t.print(os.Stdout)
}

// auditCommand is outbox audit.
type auditCommand struct {
	Who    string `name:"by" help:"Only what somebody did."`
	Action string `help:"Only what was done so: replay, rehearse, dismiss, replay all, stop, pause and so on."`
	Target string `help:"Only what was done to this, like \"dead letter 7\" or \"operation 2\"."`
	Limit  int    `default:"50" help:"How many at most. Default: 50."`
	JSON   bool   `help:"Print the entries as JSON, one a line."`
}

func (c auditCommand) Run(ctx context.Context) error {
	if c.Limit < 1 {
		return fmt.Errorf("--limit must be 1 or more, and is %d", c.Limit)
	}
	return operate(ctx, func(o *outbox.Operator) error {
		all, err := o.Audit(ctx, outbox.AuditFilter{Actor: c.Who, Action: c.Action, Target: c.Target}, 0, c.Limit)
		if err != nil {
			return err
		}
		if c.JSON {
			return printLines(os.Stdout, all)
		}
		t := table("AT", "BY", "ACTION", "TARGET", "REASON")
		for _, e := range all {
			t.row(e.At.Format(time.DateTime), e.Actor, e.Action, e.Target, firstLine(e.Reason))
		}
		return t.print(os.Stdout)
	})
}
