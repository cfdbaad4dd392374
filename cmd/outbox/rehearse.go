package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type dlqRehearse struct {
	by
	ID   int64  `arg:"" help:"The letter's number."`
	Data string `type:"existingfile" help:"A file with JSON to try in place of the event's data."`
	JSON bool   `help:"Print the rehearsal as JSON."`
}

// Run exits with 1 where the handler would fail, and with 2 where nobody knows.
func (c dlqRehearse) Run(ctx context.Context) error {
	data, err := readData(c.Data)
	if err != nil {
		return exitError{err, 2}
	}
	var r *outbox.Rehearsal
	err = operate(ctx, func(o *outbox.Operator) (err error) {
		r, err = o.Rehearse(ctx, c.ID, data, c.action(false))
		return err
	})
	if err == nil {
		if c.JSON {
			err = printLines(os.Stdout, []*outbox.Rehearsal{r})
		} else {
			printRehearsal(os.Stdout, r)
		}
	}
	switch {
	case err != nil:
		return exitError{err, 2}
	case r.Outcome == outbox.Succeeds:
		return nil
	case r.Outcome == outbox.Fails:
		return fmt.Errorf("rehearse: dead letter %d would fail again", c.ID)
	}
	return exitError{fmt.Errorf("rehearse: nobody knows what dead letter %d would do: try again", c.ID), 2}
}

func printRehearsal(w io.Writer, r *outbox.Rehearsal) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // what a terminal did not take is nobody's error
	p("dead letter %d of %s, which is %s: %s, after %.1f ms; all of it is rolled back", r.LetterID, r.Consumer, r.State, r.Outcome, r.Duration)
	printDiff(w, r.Diff)
	for _, d := range r.Problems {
		p("data%s %s: a replay with it has to be forced", printable(d.Pointer), printable(d.Detail))
	}
	if r.Error != "" {
		p("error: %s", printable(r.Error))
	}
	if r.ProcessedAt != nil {
		p("the event was processed at %s: a replay would do nothing", r.ProcessedAt.Format("2006-01-02 15:04:05"))
	}
	for _, t := range r.Tables {
		p("%s: %d inserted, %d updated, %d deleted", printable(t.Table), t.Inserted, t.Updated, t.Deleted)
		if t.Note != "" {
			p("  %s", t.Note)
		}
	}
	for _, c := range r.Changes {
		p("%s %s", c.Operation, printable(c.Table))
		if c.TooLarge {
			p("  (larger than %d KiB)", outbox.MaxRehearsedBytes>>10)
		}
		if c.Before != nil {
			p("  - %s", printable(string(c.Before)))
		}
		if c.After != nil {
			p("  + %s", printable(string(c.After)))
		}
	}
	for _, e := range r.Events {
		p("event %s  key %s  %s", e.Type, printable(e.Key), printable(string(e.Data)))
	}
}

// printDiff prints what an edit changes, a line each.
func printDiff(w io.Writer, diff []outbox.DataChange) {
	for _, c := range diff {
		_, _ = fmt.Fprintf(w, "%s %s %s → %s\n", c.Op, printable(c.Path), printable(string(c.From)), printable(string(c.To)))
	}
}
