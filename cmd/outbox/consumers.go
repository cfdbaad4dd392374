package main

import (
	"context"
	"os/user"
	"strings"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// consumersCommand is outbox consumers. It works on the database, and needs no running service.
type consumersCommand struct {
	Ls          consumersLs          `cmd:"" default:"withargs" help:"Lag, oldest age, held keys and what is paused. The default."`
	Pause       consumersPause       `cmd:"" help:"Stop a consumer at the end of its running batches."`
	Resume      consumersResume      `cmd:"" help:"Let a paused consumer go on."`
	Backfill    consumersBackfill    `cmd:"" help:"Run a consumer again over a part of the log, as after a repair of its code."`
	Backfills   backfillsLs          `cmd:"" help:"The backfills of a consumer and how far they are, as outbox backfills ls."`
	Stop        backfillsStop        `cmd:"" help:"Stop a backfill where it is, as outbox backfills stop."`
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
	output
}

func (c consumersLs) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		all, err := o.Consumers(ctx)
		if err != nil {
			return err
		}
		t := table("CONSUMER", "KIND", "LAG", "OLDEST", "IN FLIGHT", "HELD KEYS", "WAITING", "DEAD", "")
		for _, c := range all {
			state := ""
			if c.PausedAt != nil {
				state = "paused"
			}
			t.row(c.Name, c.Kind, c.Lag, seconds(c.OldestAge), c.InFlight, c.HeldKeys, c.Waiting, c.Dead, state)
		}
		return c.print(whole(all), func(p *printer) { p.table(t) })
	})
}

type consumersPause struct {
	by
	output
	Name string `arg:"" help:"The consumer."`
}

func (c consumersPause) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		if err := o.Pause(ctx, c.Name, c.action(false)); err != nil {
			return err
		}
		return c.print(handlers.Paused{Name: c.Name, Paused: true}, func(p *printer) { p.line("%s is paused", c.Name) })
	})
}

type consumersResume struct {
	by
	output
	Name string `arg:"" help:"The consumer."`
}

func (c consumersResume) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		if err := o.Resume(ctx, c.Name, c.action(false)); err != nil {
			return err
		}
		return c.print(handlers.Paused{Name: c.Name, Paused: false}, func(p *printer) { p.line("%s goes on", c.Name) })
	})
}

type consumersRemove struct {
	by
	output
	Name  string `arg:"" help:"The consumer."`
	Force bool   `help:"Even if it has something left to do."`
}

func (c consumersRemove) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		r, err := o.Remove(ctx, c.Name, c.action(c.Force))
		if err != nil {
			return err
		}
		return c.print(r, func(p *printer) {
			p.line("%s is gone: %d events ahead of it, %d in flight, %d waiting, %d dead; its letters are those of %s",
				r.Consumer, r.Lag, r.InFlight, r.Waiting, r.Dead, r.LettersOf)
		})
	})
}

type consumersUnsubscribe struct {
	by
	output
	Name    string `arg:"" help:"The consumer."`
	Pattern string `arg:"" help:"The subscription, like cart.*"`
}

func (c consumersUnsubscribe) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		pattern := strings.TrimSpace(c.Pattern)
		if err := o.Unsubscribe(ctx, c.Name, pattern, c.action(false)); err != nil {
			return err
		}
		return c.print(handlers.Unsubscribed{Name: c.Name, Unsubscribed: pattern}, func(p *printer) {
			p.line("%s does not get %s any more", c.Name, pattern)
		})
	})
}
