package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// eventsCommand is outbox events. It reads the database, and needs no running service.
type eventsCommand struct {
	Show eventsShow `cmd:"" default:"withargs" help:"One event, with its data and what became of it at each consumer. The default."`
}

type eventsShow struct {
	output
	ID uuid.UUID `arg:"" help:"The event's id."`
}

func (c eventsShow) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		e, err := o.Event(ctx, c.ID)
		if err != nil {
			return err
		}
		return c.print(e, func(p *printer) { printEvent(p, e) })
	})
}

func printEvent(p *printer, e *outbox.EventView) {
	p.line("event %s  %s  key %s  correlation id %s", e.ID, e.Type, e.Key, e.CorrelationID)
	where := e.State
	if e.Position != nil {
		where += fmt.Sprintf(" at position %d", *e.Position)
	}
	if e.NotBefore != nil {
		where += ", due at " + e.NotBefore.UTC().Format(time.DateTime)
	}
	p.line("%s; occurred at %s, from %s", where, e.OccurredAt.UTC().Format(time.DateTime), named(e.Source))
	if e.CausationID != nil {
		p.line("caused by event %s", e.CausationID)
	}
	if e.Error != "" {
		p.lines("  ", e.Error)
	}
	p.line("data: %s", e.Data)
	for _, d := range e.Deliveries {
		p.line("%s is %s: %s", d.Consumer, strings.ReplaceAll(d.State, "_", " "), d.Explanation)
		for _, a := range d.Attempts {
			p.line("  %s  %s", a.At.UTC().Format(time.DateTime), attempt(a))
		}
	}
}

// searchCommand is outbox search.
type searchCommand struct {
	output
	Query  string `arg:"" help:"A user's address or id, a correlation id, an event's id or a key."`
	Limit  int    `default:"10" help:"How many timelines at most. Default: 10."`
	Cursor string `help:"Where to go on: the next_cursor of the part before."`
}

// Run exits with 1 where nothing is found.
func (c searchCommand) Run(ctx context.Context) error {
	query := strings.TrimSpace(c.Query)
	if !handlers.Searchable(query) {
		return usage("search: the query must be 1 to 255 bytes of UTF-8")
	}
	before, err := listing{c.Limit, c.Cursor}.before()
	if err != nil {
		return err
	}
	return operateOn(ctx, func(pool *pgxpool.Pool, o *outbox.Operator) error {
		what, err := handlers.Lookup(ctx, pool, query)
		if err != nil {
			return err
		}
		found, err := o.Search(ctx, what, before, c.Limit)
		for err == nil && len(found.Timelines) == 0 && found.Next > 0 { // a part may hold nothing, and still have a next one
			found, err = o.Search(ctx, what, found.Next, c.Limit)
		}
		if err != nil {
			return err
		}
		answer := handlers.TimelinePage(found)
		if err := c.print(answer, func(p *printer) {
			for i, t := range answer.Items {
				if i > 0 {
					p.line("")
				}
				printTimeline(p, t)
			}
			p.more(answer.NextCursor)
		}); err != nil {
			return err
		}
		if len(answer.Items) == 0 {
			return errors.New("search: no event has anything to do with what is searched for")
		}
		return nil
	})
}

// named is the name of a producer.
func named(source string) string {
	if source == "" {
		return "a producer without a name"
	}
	return source
}
