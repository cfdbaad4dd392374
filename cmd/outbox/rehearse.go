package main

import (
	"context"
	"fmt"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type dlqRehearse struct {
	by
	output
	ID   int64  `arg:"" help:"The letter's number."`
	Data string `type:"existingfile" help:"A file with JSON to try in place of the event's data."`
}

// Run exits with 1 where the handler would fail, and with 2 where nobody knows.
func (c dlqRehearse) Run(ctx context.Context) error {
	data, err := readData(c.Data)
	if err != nil {
		return unclear(err)
	}
	var r *outbox.Rehearsal
	err = operate(ctx, func(o *outbox.Operator) (err error) {
		r, err = o.Rehearse(ctx, c.ID, data, c.action(false))
		return err
	})
	if err == nil {
		err = c.print(r, func(p *printer) { printRehearsal(p, r) })
	}
	switch {
	case err != nil:
		return unclear(err)
	case r.Outcome == outbox.Succeeds:
		return nil
	case r.Outcome == outbox.Fails:
		return fmt.Errorf("rehearse: dead letter %d would fail again", c.ID)
	}
	return unclear(fmt.Errorf("rehearse: nobody knows what dead letter %d would do: try again", c.ID))
}

func printRehearsal(p *printer, r *outbox.Rehearsal) {
	p.line("dead letter %d of %s, which is %s: %s, after %.1f ms; all of it is rolled back", r.LetterID, r.Consumer, r.State, r.Outcome, r.Duration)
	printDiff(p, r.Diff)
	for _, d := range r.Problems {
		p.line("data%s %s: a replay with it has to be forced", d.Pointer, d.Detail)
	}
	if r.Error != "" {
		p.line("error: %s", r.Error)
	}
	if r.ProcessedAt != nil {
		p.line("the event was processed at %s: a replay would do nothing", r.ProcessedAt.Format("2006-01-02 15:04:05"))
	}
	for _, t := range r.Tables {
		p.line("%s: %d inserted, %d updated, %d deleted", t.Table, t.Inserted, t.Updated, t.Deleted)
		if t.Note != "" {
			p.line("  %s", t.Note)
		}
	}
	for _, c := range r.Changes {
		p.line("%s %s", c.Operation, c.Table)
		if c.TooLarge {
			p.line("  (larger than %d KiB)", outbox.MaxRehearsedBytes>>10)
		}
		if c.Before != nil {
			p.line("  - %s", c.Before)
		}
		if c.After != nil {
			p.line("  + %s", c.After)
		}
	}
	for _, e := range r.Events {
		p.line("event %s  key %s  %s", e.Type, e.Key, e.Data)
	}
}

// printDiff prints what an edit changes, a line each.
func printDiff(p *printer, diff []outbox.DataChange) {
	for _, c := range diff {
		p.line("%s %s %s → %s", c.Op, c.Path, c.From, c.To)
	}
}
