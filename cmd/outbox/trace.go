package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// traceCommand is outbox trace. It reads the database, and needs no running service.
type traceCommand struct {
	ID   string `arg:"" help:"The correlation id, or what else is known: a user's address or id, an event's id, a key."`
	JSON bool   `help:"Print the timelines as JSON, one a line."`
}

// traceMost is how many timelines a look by anything but a correlation id prints.
const traceMost = 10

// Run exits with 1 where nothing is found.
func (c traceCommand) Run(ctx context.Context) error {
	return operateOn(ctx, func(pool *pgxpool.Pool, o *outbox.Operator) error {
		t, err := o.Trace(ctx, c.ID)
		switch {
		case err == nil:
			return c.print(os.Stdout, *t)
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
				if err := c.print(os.Stdout, t); err != nil {
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

func (c traceCommand) print(w io.Writer, t outbox.Timeline) error {
	if c.JSON {
		return printLines(w, []outbox.Timeline{t})
	}
	_, err := io.WriteString(w, timeline(t))
	return err
}

// timeline is a timeline for people: every event under its cause, and under each what became of it at each consumer.
func timeline(t outbox.Timeline) string {
	var b strings.Builder
	since := func(at time.Time) string { return fmt.Sprintf("%+10.3f s", at.Sub(t.From).Seconds()) }
	request := t.Request.Source
	if request == "" {
		request = "a producer without a name"
	}
	fmt.Fprintf(&b, "%s  began with %s at %s\n", t.CorrelationID, printable(request), t.From.Format("2006-01-02 15:04:05.000 UTC"))
	for _, e := range t.Events {
		indent := strings.Repeat("  ", e.Depth)
		fmt.Fprintf(&b, "%s  %s%s  %s  key %s", since(e.OccurredAt), indent, e.Type, e.ID, printable(e.Key))
		if e.Source != "" && e.Depth > 0 {
			fmt.Fprintf(&b, "  from %s", printable(e.Source))
		}
		if e.State != "relayed" {
			fmt.Fprintf(&b, "  (%s)", e.State)
		}
		b.WriteByte('\n')
		for _, d := range e.Deliveries {
			for _, a := range d.Attempts {
				fmt.Fprintf(&b, "%s  %s    %s: %s\n", since(a.At), indent, d.Consumer, attempt(a))
			}
			at := strings.Repeat(" ", len(since(t.From)))
			if d.ProcessedAt != nil {
				at = since(*d.ProcessedAt)
			}
			fmt.Fprintf(&b, "%s  %s    %s: %s\n", at, indent, d.Consumer, printable(d.Explanation))
		}
	}
	if t.More {
		fmt.Fprintf(&b, "… and more: only the first %d events are shown\n", len(t.Events))
	}
	if len(t.Open) == 0 {
		b.WriteString("everything is done\n")
		return b.String()
	}
	fmt.Fprintf(&b, "%d not done:\n", len(t.Open))
	for _, o := range t.Open {
		who := o.Consumer
		if who == "" {
			who = "the event"
		}
		fmt.Fprintf(&b, "  %s of %s is %s: %s\n", who, o.Type, strings.ReplaceAll(o.State, "_", " "), printable(o.Explanation))
	}
	return b.String()
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
		said += ": " + printable(line)
	}
	return said
}
