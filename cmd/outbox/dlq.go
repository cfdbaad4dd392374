package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

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
	letterFilter
	Limit int  `default:"50" help:"How many at most. Default: 50."`
	JSON  bool `help:"Print the letters as JSON, one a line."`
}

func (c dlqLs) Run(ctx context.Context) error {
	if c.Limit < 1 {
		return fmt.Errorf("--limit must be 1 or more, and is %d", c.Limit)
	}
	return operate(ctx, func(o *outbox.Operator) error {
		letters, err := o.Letters(ctx, c.filter(), 0, c.Limit+1)
		if err != nil {
			return err
		}
		more := len(letters) > c.Limit
		letters = letters[:min(len(letters), c.Limit)]
		if c.JSON {
			return printLines(os.Stdout, letters)
		}
		t := table("ID", "DISCARDED", "CONSUMER", "TYPE", "KEY", "ATTEMPTS", "STATE", "ERROR")
		for _, l := range letters {
			t.row(l.ID, l.DiscardedAt.Format(time.DateTime), l.Consumer, l.Type, l.Key, l.Attempts, l.State, firstLine(l.Error))
		}
		if err := t.print(os.Stdout); err != nil {
			return err
		}
		if more {
			fmt.Println("… and more: --limit shows them, and outbox dlq groups counts them")
		}
		return nil
	})
}

type dlqGroups struct {
	letterFilter
	JSON bool `help:"Print the groups as JSON, one a line."`
}

// groupsMost is how many groups are printed.
const groupsMost = 100

func (c dlqGroups) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		groups, err := o.LetterGroups(ctx, c.filter(), nil, groupsMost)
		if err != nil {
			return err
		}
		if c.JSON {
			return printLines(os.Stdout, groups)
		}
		t := table("LETTERS", "CONSUMER", "TYPES", "SINCE", "NEWEST", "FINGERPRINT", "CAUSE")
		for _, g := range groups {
			t.row(g.Letters, g.Consumer, strings.Join(g.Types, ","), g.Oldest.Format(time.DateTime), g.NewestID, g.Fingerprint, g.Error)
		}
		return t.print(os.Stdout)
	})
}

type dlqShow struct {
	ID   int64 `arg:"" help:"The letter's number."`
	JSON bool  `help:"Print the letter as JSON."`
}

func (c dlqShow) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		l, err := o.Letter(ctx, c.ID)
		if err != nil {
			return err
		}
		if c.JSON {
			return printLines(os.Stdout, []*outbox.Letter{l})
		}
		fmt.Printf("dead letter %d of %s: %s, after %d attempts and %d replays\n", l.ID, l.Consumer, l.State, l.Attempts, l.Replays)
		fmt.Printf("event %s  %s  key %s  correlation id %s\n", l.EventID, l.Type, printable(l.Key), l.CorrelationID)
		fmt.Printf("data: %s\n", l.Data)
		if l.Edit != nil {
			fmt.Printf("edited by %s at %s: %s\n  %s\n", printable(l.Edit.Actor), l.Edit.At.Format(time.DateTime), printable(l.Edit.Reason), printable(string(l.Edit.Diff)))
		}
		for _, e := range l.Errors {
			fmt.Printf("%s  attempt %d:\n", e.At.UTC().Format(time.DateTime), e.Attempt)
			for line := range strings.Lines(e.Error) {
				fmt.Printf("  %s\n", printable(strings.TrimRight(line, "\n")))
			}
		}
		fmt.Printf("waiting behind it: %d\n", l.WaitingCount)
		return nil
	})
}

func readData(file string) (json.RawMessage, error) {
	if file == "" {
		return nil, nil
	}
	return os.ReadFile(file)
}

type dlqDismiss struct {
	by
	ID int64 `arg:"" help:"The letter's number."`
}

func (c dlqDismiss) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		d, err := o.Dismiss(ctx, c.ID, c.action(false))
		if err == nil {
			fmt.Printf("dead letter %d is dismissed; %d events that waited behind it go on\n", c.ID, d.ReleasedCount)
		}
		return err
	})
}

type dlqRedact struct {
	by
	ID      int64    `arg:"" help:"The letter's number."`
	Pointer []string `sep:"none" help:"A place in the data, as a JSON pointer like /email; may be given several times. Only of a letter that is settled."`
	Errors  bool     `help:"What every attempt's error says."`
	Reasons bool     `help:"The reasons that were given until now for what was done to the letter."`
	JSON    bool     `help:"Print how much was redacted as JSON."`
}

func (c dlqRedact) Run(ctx context.Context) error {
	if len(c.Pointer) == 0 && !c.Errors && !c.Reasons {
		return exitError{errors.New("redact: give --pointer, --errors or --reasons"), 2}
	}
	return operate(ctx, func(o *outbox.Operator) error {
		r, err := o.Redact(ctx, c.ID, outbox.Redaction{Pointers: c.Pointer, Errors: c.Errors, Reasons: c.Reasons}, c.action(false))
		switch {
		case err != nil:
			return err
		case c.JSON:
			return printLines(os.Stdout, []*outbox.Redacted{r})
		}
		fmt.Printf("dead letter %d: redacted %d values, %d errors and %d reasons, each copy counted\n", c.ID, r.Values, r.Errors, r.Reasons)
		return nil
	})
}

// printLines prints each as a line of JSON.
func printLines[T any](w io.Writer, all []T) error {
	out := json.NewEncoder(w)
	for _, v := range all {
		if err := out.Encode(v); err != nil {
			return err
		}
	}
	return nil
}
