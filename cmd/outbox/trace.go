package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// traceCommand is outbox trace. It reads the database, and needs no running service.
type traceCommand struct {
	ID   string `arg:"" help:"The correlation id, or what else is known: a user's address or id, an event's id, a key."`
	JSON bool   `name:"json" help:"Print the timeline as JSON: the document that GET /admin/trace/{correlation_id} answers; where there are several, one a line."`
}

// traceMost is how many timelines a look by anything but a correlation id prints.
const traceMost = 10

// Run exits with 1 where nothing is found.
func (c traceCommand) Run(ctx context.Context) error {
	return operateOn(ctx, func(pool *pgxpool.Pool, o *outbox.Operator) error {
		t, err := o.Trace(ctx, c.ID)
		switch {
		case err == nil:
			return c.print(*t)
		case !errors.Is(err, outbox.ErrNotFound):
			return err
		}
		what, err := handlers.Lookup(ctx, pool, c.ID)
		if err != nil {
			return err
		}
		printed := 0
		for before, first := int64(0), true; printed < traceMost && (first || before > 0); first = false {
			found, err := o.Search(ctx, what, before, traceMost-printed)
			if err != nil {
				return err
			}
			for _, t := range found.Timelines {
				if printed++; printed > 1 && !c.JSON {
					fmt.Println()
				}
				if err := c.print(t); err != nil {
					return err
				}
			}
			before = found.Next
		}
		if printed == 0 {
			return fmt.Errorf("trace: no event has anything to do with %q", c.ID)
		}
		return nil
	})
}

func (c traceCommand) print(t outbox.Timeline) error {
	return output{c.JSON}.print(t, func(p *printer) { printTimeline(p, t) })
}

// printTimeline prints a timeline for people: every event under its cause, and under each what became of it at each consumer.
func printTimeline(p *printer, t outbox.Timeline) {
	since := func(at time.Time) string { return fmt.Sprintf("%+10.3f s", at.Sub(t.From).Seconds()) }
	p.line("%s  began with %s at %s", t.CorrelationID, named(t.Request.Source), t.From.Format("2006-01-02 15:04:05.000 UTC"))
	for _, e := range t.Events {
		indent := strings.Repeat("  ", e.Depth)
		line := fmt.Sprintf("%s  %s%s  %s  key %s", since(e.OccurredAt), indent, e.Type, e.ID, e.Key)
		if e.Source != "" && e.Depth > 0 {
			line += "  from " + e.Source
		}
		if e.State != "relayed" {
			line += fmt.Sprintf("  (%s)", e.State)
		}
		p.line("%s", line)
		for _, d := range e.Deliveries {
			for _, a := range d.Attempts {
				p.line("%s  %s    %s: %s", since(a.At), indent, d.Consumer, attempt(a))
			}
			at := strings.Repeat(" ", len(since(t.From)))
			if d.ProcessedAt != nil {
				at = since(*d.ProcessedAt)
			}
			p.line("%s  %s    %s: %s", at, indent, d.Consumer, d.Explanation)
		}
	}
	if t.More {
		p.line("… and more: only the first %d events are shown", len(t.Events))
	}
	if len(t.Open) == 0 {
		p.line("everything is done")
		return
	}
	p.line("%d not done:", len(t.Open))
	for _, o := range t.Open {
		who := o.Consumer
		if who == "" {
			who = "the event"
		}
		p.line("  %s of %s is %s: %s", who, o.Type, strings.ReplaceAll(o.State, "_", " "), o.Explanation)
	}
}

// attempt is a line of the delivery log for people.
func attempt(a outbox.AttemptRecord) string {
	said := a.Outcome
	if a.Attempt > 0 {
		said = fmt.Sprintf("attempt %d %s", a.Attempt, a.Outcome)
	}
	if a.Behind != nil {
		said += " behind event " + a.Behind.String()
	}
	if line := firstLine(a.Error); line != "" {
		said += ": " + line
	}
	return said
}
