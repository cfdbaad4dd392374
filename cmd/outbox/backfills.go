package main

import (
	"context"
	"fmt"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// backfillsCommand is outbox backfills. It works on the database; the backfills themselves run in the service's workers.
type backfillsCommand struct {
	Ls   backfillsLs   `cmd:"" help:"The backfills of a consumer, the newest first, and how far they are."`
	Show backfillsShow `cmd:"" help:"How far one backfill is."`
	Stop backfillsStop `cmd:"" help:"Stop a backfill where it is."`
}

// consumersBackfill begins one. It exits with 0 only when the backfill is done, or nobody waits for that.
type consumersBackfill struct {
	by
	output
	Name    string `arg:"" help:"The consumer."`
	From    string `required:"" help:"Where it begins: beginning, or a time like 2026-01-31T12:00:00Z."`
	Until   string `help:"Where it ends, a time. Default: where the consumer is now."`
	Appends bool   `help:"Write the events that its handlers append. By default they are not: what followed is in the log already."`
	Force   bool   `help:"Also where the consumer calls the outside, which it then does again."`
	Detach  bool   `short:"d" help:"Do not wait for its end: outbox backfills show tells how far it is."`
}

func (c consumersBackfill) Run(ctx context.Context) error {
	from, ok := outbox.ParseStart(c.From)
	if !ok || c.From == "" {
		return usage("--from must be beginning, or a time like 2026-01-31T12:00:00Z, and is %q", c.From)
	}
	b := outbox.Backfill{From: from, Appends: c.Appends}
	if c.Until != "" {
		until, err := time.Parse(time.RFC3339, c.Until)
		if err != nil {
			return usage("--until must be a time like 2026-01-31T12:00:00Z, and is %q", c.Until)
		}
		b.Until = until
	}
	return operate(ctx, func(o *outbox.Operator) error {
		s, err := o.Backfill(ctx, c.Name, b, c.action(c.Force))
		if err != nil {
			return err
		}
		return c.awaitBackfill(ctx, o, s, c.Detach)
	})
}

// awaitBackfill waits for the end of a backfill, unless detached, and prints how far it is. One that did not come to its end is an error.
func (o output) awaitBackfill(ctx context.Context, by *outbox.Operator, s *outbox.BackfillStatus, detached bool) (err error) {
	if !detached {
		if s, err = o.followBackfill(ctx, by, s.ID); err != nil {
			return err
		}
	}
	if err := o.print(s, func(p *printer) { p.line("%s", howFar(*s)) }); err != nil {
		return err
	}
	if !detached && s.State != "done" {
		return fmt.Errorf("backfill: %d is %s", s.ID, s.State)
	}
	return nil
}

// howFar is a backfill on a line.
func howFar(s outbox.BackfillStatus) string {
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

type backfillsLs struct {
	output
	Name string `arg:"" help:"The consumer."`
}

func (c backfillsLs) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		all, err := o.Backfills(ctx, c.Name)
		if err != nil {
			return err
		}
		return c.print(whole(all), func(p *printer) {
			for _, s := range all {
				p.line("%s", howFar(s))
			}
		})
	})
}

type backfillsShow struct {
	output
	ID     int64 `arg:"" help:"The backfill's number."`
	Follow bool  `help:"Wait for its end."`
}

func (c backfillsShow) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		s, err := o.BackfillStatus(ctx, c.ID)
		if err == nil && c.Follow {
			s, err = c.followBackfill(ctx, o, c.ID)
		}
		if err != nil {
			return err
		}
		return c.print(s, func(p *printer) { p.line("%s", howFar(*s)) })
	})
}

type backfillsStop struct {
	by
	output
	ID int64 `arg:"" name:"backfill" help:"The backfill's number."`
}

func (c backfillsStop) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		s, err := o.StopBackfill(ctx, c.ID, c.action(false))
		if err != nil {
			return err
		}
		return c.print(s, func(p *printer) { p.line("%s", howFar(*s)) })
	})
}
