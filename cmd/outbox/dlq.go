package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// dlqCommand is outbox dlq: the dead letters. It works on the database, and needs no running service.
type dlqCommand struct {
	Ls       dlqLs       `cmd:"" default:"withargs" help:"The dead letters, the newest first. The default."`
	Groups   dlqGroups   `cmd:"" help:"How many dead letters there are of each cause."`
	Show     dlqShow     `cmd:"" help:"One letter: its event, every attempt's error, and what waits behind it."`
	Rehearse dlqRehearse `cmd:"" help:"Run the handler of a letter's consumer, show what it would change, and roll it back. Exit 1 where it would fail."`
	Replay   dlqReplay   `cmd:"" help:"Send the event of a letter to its consumer again, under the same id; or those of all letters that a filter chooses."`
	Redact   dlqRedact   `cmd:"" help:"Take a person's data out of what is kept of a letter: its edited data, its errors, the reasons that were given."`
	Dismiss  dlqDismiss  `cmd:"" help:"Give up the event of a letter: what waits behind it goes on without it."`
}

// letterFilter chooses letters, as the parameters of GET /admin/dlq do.
type letterFilter struct {
	Consumer      string    `help:"Only those of a consumer."`
	Type          string    `help:"Only those of a type of event."`
	Key           string    `help:"Only those of a key."`
	CorrelationID string    `help:"Only those of a correlation id."`
	State         string    `default:"dead" enum:"dead,replaying,replayed,dismissed,any" help:"dead, replaying, replayed, dismissed or any. Default: dead."`
	Since         time.Time `help:"Only those discarded at that time, like 2026-01-31T12:00:00Z, or later."`
	Until         time.Time `help:"Only those discarded before that time."`
	Error         string    `help:"Only those whose last error has this in it, in any case."`
	Fingerprint   string    `help:"Only those of one cause, as outbox dlq groups shows it."`
}

func (f letterFilter) filter() outbox.LetterFilter {
	if f.State == "any" {
		f.State = ""
	}
	return outbox.LetterFilter{
		Consumer: f.Consumer, Type: f.Type, Key: f.Key, CorrelationID: f.CorrelationID, State: f.State,
		Since: f.Since, Until: f.Until, Error: f.Error, Fingerprint: f.Fingerprint,
	}
}

type dlqLs struct {
	output
	letterFilter
	listing
}

func (c dlqLs) Run(ctx context.Context) error {
	before, err := c.before()
	if err != nil {
		return err
	}
	return operate(ctx, func(o *outbox.Operator) error {
		read, err := o.Letters(ctx, c.filter(), before, c.Limit+1)
		if err != nil {
			return err
		}
		letters := handlers.LetterPage(read, c.Limit)
		t := table("ID", "DISCARDED", "CONSUMER", "TYPE", "KEY", "ATTEMPTS", "STATE", "ERROR")
		for _, l := range letters.Items {
			t.row(l.ID, l.DiscardedAt.Format(time.DateTime), l.Consumer, l.Type, l.Key, l.Attempts, l.State, firstLine(l.Error))
		}
		return c.print(letters, func(p *printer) {
			p.table(t)
			p.more(letters.NextCursor)
		})
	})
}

type dlqGroups struct {
	output
	letterFilter
	listing
}

func (c dlqGroups) Run(ctx context.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	var after *outbox.LetterGroup
	if c.Cursor != "" {
		var ok bool
		if after, ok = handlers.ParseGroupCursor(c.Cursor); !ok {
			return usage("--cursor must be a next_cursor that a part of this list gave, and is %q", c.Cursor)
		}
	}
	return operate(ctx, func(o *outbox.Operator) error {
		read, err := o.LetterGroups(ctx, c.filter(), after, c.Limit+1)
		if err != nil {
			return err
		}
		groups := handlers.LetterGroupPage(read, c.Limit)
		t := table("LETTERS", "CONSUMER", "TYPES", "SINCE", "NEWEST", "FINGERPRINT", "CAUSE")
		for _, g := range groups.Items {
			t.row(g.Letters, g.Consumer, strings.Join(g.Types, ","), g.Oldest.Format(time.DateTime), g.NewestID, g.Fingerprint, g.Error)
		}
		return c.print(groups, func(p *printer) {
			p.table(t)
			p.more(groups.NextCursor)
		})
	})
}

type dlqShow struct {
	output
	ID int64 `arg:"" help:"The letter's number."`
}

func (c dlqShow) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		l, err := o.Letter(ctx, c.ID)
		if err != nil {
			return err
		}
		return c.print(l, func(p *printer) { printLetter(p, l) })
	})
}

func printLetter(p *printer, l *outbox.Letter) {
	p.line("dead letter %d of %s: %s, after %d attempts and %d replays", l.ID, l.Consumer, l.State, l.Attempts, l.Replays)
	p.line("event %s  %s  key %s  correlation id %s", l.EventID, l.Type, l.Key, l.CorrelationID)
	p.line("data: %s", l.Data)
	if l.Edit != nil {
		p.line("edited by %s at %s: %s", l.Edit.Actor, l.Edit.At.Format(time.DateTime), l.Edit.Reason)
		p.line("  %s", l.Edit.Diff)
	}
	for _, e := range l.Errors {
		p.line("%s  attempt %d:", e.At.UTC().Format(time.DateTime), e.Attempt)
		p.lines("  ", e.Error)
	}
	p.line("waiting behind it: %d", l.WaitingCount)
	for _, w := range l.Waiting {
		p.line("  event %s  %s  since %s", w.EventID, w.Type, w.Since.Format(time.DateTime))
	}
}

func readData(file string) (json.RawMessage, error) {
	if file == "" {
		return nil, nil
	}
	return os.ReadFile(file)
}

type dlqDismiss struct {
	by
	output
	ID    int64 `arg:"" help:"The letter's number."`
	Force bool  `help:"Also where its consumer may have done outside what nobody knows of."`
}

func (c dlqDismiss) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		d, err := o.Dismiss(ctx, c.ID, c.action(c.Force))
		if err != nil {
			return err
		}
		return c.print(d, func(p *printer) {
			p.line("dead letter %d is dismissed; %d events that waited behind it go on", c.ID, d.ReleasedCount)
		})
	})
}

type dlqRedact struct {
	by
	output
	ID      int64    `arg:"" help:"The letter's number."`
	Pointer []string `sep:"none" help:"A place in the data, as a JSON pointer like /email; may be given several times. Only of a letter that is settled."`
	Errors  bool     `help:"What every attempt's error says."`
	Reasons bool     `help:"The reasons that were given until now for what was done to the letter."`
}

func (c dlqRedact) Run(ctx context.Context) error {
	if len(c.Pointer) == 0 && !c.Errors && !c.Reasons {
		return usage("redact: give --pointer, --errors or --reasons")
	}
	return operate(ctx, func(o *outbox.Operator) error {
		r, err := o.Redact(ctx, c.ID, outbox.Redaction{Pointers: c.Pointer, Errors: c.Errors, Reasons: c.Reasons}, c.action(false))
		if err != nil {
			return err
		}
		return c.print(r, func(p *printer) {
			p.line("dead letter %d: redacted %d values, %d errors and %d reasons, each copy counted", c.ID, r.Values, r.Errors, r.Reasons)
		})
	})
}
