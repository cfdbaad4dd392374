package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// consumersCommand is outbox consumers. It works on the database, and needs no running service.
type consumersCommand struct {
	Ls          consumersLs          `cmd:"" default:"withargs" help:"Lag, oldest age, held keys and what is paused. The default."`
	Pause       consumersPause       `cmd:"" help:"Stop a consumer at the end of its running batches."`
	Resume      consumersResume      `cmd:"" help:"Let a paused consumer go on."`
	Backfill    consumersBackfill    `cmd:"" help:"Run a consumer again over a part of the log, as after a repair of its code."`
	Backfills   consumersBackfills   `cmd:"" help:"The backfills of a consumer and how far they are."`
	Stop        consumersStop        `cmd:"" help:"Stop a backfill where it is."`
	Remove      consumersRemove      `cmd:"" help:"Forget a consumer that the code does not have any more."`
	Unsubscribe consumersUnsubscribe `cmd:"" help:"End a subscription that a consumer's code does not handle any more."`
}

// by says who acts, and why. The audit keeps both.
type by struct {
	Actor  string `help:"Who does it, for the audit. Default: the user of this machine."`
	Reason string `help:"Why, for the audit."`
}

func (b by) action(force bool) outbox.Action {
	actor := b.Actor
	if actor == "" {
		actor = "command line"
		if u, err := user.Current(); err == nil {
			actor = u.Username
		}
	}
	return outbox.Action{Actor: actor, Reason: b.Reason, Force: force}
}

type consumersLs struct {
	JSON bool `help:"Print the consumers as JSON, one a line."`
}

func (c consumersLs) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		all, err := o.Consumers(ctx)
		if err != nil {
			return err
		}
		if c.JSON {
			return printLines(os.Stdout, all)
		}
		t := table("CONSUMER", "KIND", "LAG", "OLDEST", "IN FLIGHT", "HELD KEYS", "WAITING", "DEAD", "")
		for _, c := range all {
			state := ""
			if c.PausedAt != nil {
				state = "paused"
			}
			oldest := time.Duration(c.OldestAge * float64(time.Second)).Round(time.Second)
			t.row(c.Name, c.Kind, c.Lag, oldest, c.InFlight, c.HeldKeys, c.Waiting, c.Dead, state)
		}
		return t.print(os.Stdout)
	})
}

type consumersPause struct {
	by
	Name string `arg:"" help:"The consumer."`
}

func (c consumersPause) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error { return o.Pause(ctx, c.Name, c.action(false)) })
}

type consumersResume struct {
	by
	Name string `arg:"" help:"The consumer."`
}

func (c consumersResume) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error { return o.Resume(ctx, c.Name, c.action(false)) })
}

type consumersBackfill struct {
	by
	Name    string `arg:"" help:"The consumer."`
	From    string `required:"" help:"Where it begins: beginning, or a time like 2026-01-31T12:00:00Z."`
	Until   string `help:"Where it ends, a time. Default: where the consumer is now."`
	Appends bool   `help:"Write the events that its handlers append. By default they are not: what followed is in the log already."`
	Force   bool   `help:"Also where the consumer calls the outside, which it then does again."`
	Detach  bool   `short:"d" help:"Do not wait for its end."`
}

func (c consumersBackfill) Run(ctx context.Context) error {
	b := outbox.Backfill{From: outbox.Beginning, Appends: c.Appends}
	if c.From != "beginning" {
		from, err := time.Parse(time.RFC3339, c.From)
		if err != nil {
			return fmt.Errorf("--from must be beginning, or a time like 2026-01-31T12:00:00Z, and is %q", c.From)
		}
		b.From = outbox.Since(from)
	}
	if c.Until != "" {
		until, err := time.Parse(time.RFC3339, c.Until)
		if err != nil {
			return fmt.Errorf("--until must be a time like 2026-01-31T12:00:00Z, and is %q", c.Until)
		}
		b.Until = until
	}
	return operate(ctx, func(o *outbox.Operator) error {
		s, err := o.Backfill(ctx, c.Name, b, c.action(c.Force))
		if err != nil {
			return err
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for !c.Detach && s.State == "running" {
			fmt.Println(progress(*s))
			select {
			case <-ctx.Done():
				fmt.Printf("backfill %d goes on without this command\n", s.ID)
				return nil
			case <-tick.C:
			}
			if s, err = o.BackfillStatus(ctx, s.ID); err != nil {
				return err
			}
		}
		fmt.Println(progress(*s))
		return nil
	})
}

func progress(s outbox.BackfillStatus) string {
	done := s.Events - s.Ahead
	percent := 100.0
	if s.Events > 0 {
		percent = 100 * float64(done) / float64(s.Events)
	}
	line := fmt.Sprintf("backfill %d of %s: %s, %d of %d events (%.0f %%)", s.ID, s.Consumer, s.State, done, s.Events, percent)
	if s.Held+s.Waiting > 0 {
		line += fmt.Sprintf(", %d held and %d waiting behind them", s.Held, s.Waiting)
	}
	return line
}

type consumersBackfills struct {
	Name string `arg:"" help:"The consumer."`
	JSON bool   `help:"Print the backfills as JSON, one a line."`
}

func (c consumersBackfills) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		all, err := o.Backfills(ctx, c.Name)
		if err != nil {
			return err
		}
		if c.JSON {
			return printLines(os.Stdout, all)
		}
		for _, s := range all {
			fmt.Println(progress(s))
		}
		return nil
	})
}

type consumersStop struct {
	by
	Backfill int64 `arg:"" help:"The backfill's number."`
}

func (c consumersStop) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		s, err := o.StopBackfill(ctx, c.Backfill, c.action(false))
		if err == nil {
			fmt.Println(progress(*s))
		}
		return err
	})
}

type consumersRemove struct {
	by
	Name  string `arg:"" help:"The consumer."`
	Force bool   `help:"Even if it has something left to do."`
}

func (c consumersRemove) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		r, err := o.Remove(ctx, c.Name, c.action(c.Force))
		if err == nil {
			fmt.Printf("%s is gone: %d events ahead of it, %d in flight, %d waiting, %d dead; its letters are those of %s\n",
				r.Consumer, r.Lag, r.InFlight, r.Waiting, r.Dead, r.LettersOf)
		}
		return err
	})
}

type consumersUnsubscribe struct {
	by
	Name    string `arg:"" help:"The consumer."`
	Pattern string `arg:"" help:"The subscription, like cart.*"`
}

func (c consumersUnsubscribe) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		return o.Unsubscribe(ctx, c.Name, strings.TrimSpace(c.Pattern), c.action(false))
	})
}
