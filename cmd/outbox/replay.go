package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

type dlqReplay struct {
	by
	output
	ID    int64  `arg:"" optional:"" help:"The letter's number. Without one, the filter chooses the letters."`
	Data  string `type:"existingfile" help:"A file with JSON that the consumer gets in place of the event's data, from now on. Takes a reason, and a letter's number."`
	Force bool   `help:"Also where later events of the key were applied already. Takes a reason."`

	bulkFilter
	All      bool `help:"All dead letters there are."`
	Rate     int  `default:"50" help:"How many letters a second, at most: 1 to 1000. Default: 50."`
	NoCanary bool `help:"Do not wait for the first letter of each group before the others follow."`
	Yes      bool `help:"Do not ask."`
	Detach   bool `help:"Do not wait for the end: outbox operations show tells how far it is."`
}

// bulkFilter chooses dead letters.
type bulkFilter struct {
	Consumer      string    `help:"Only those of a consumer."`
	Type          string    `help:"Only those of a type of events."`
	Key           string    `help:"Only those of a key."`
	CorrelationID string    `help:"Only those of a correlation id."`
	Since         time.Time `help:"Only those discarded at that time, like 2026-01-31T12:00:00Z, or later."`
	Until         time.Time `help:"Only those discarded before that time."`
	Error         string    `help:"Only those whose last error has this in it, in any case."`
	Fingerprint   string    `help:"Only those of one cause, as outbox dlq groups shows it."`
}

func (f bulkFilter) filter() outbox.LetterFilter {
	return outbox.LetterFilter{
		Consumer: f.Consumer, Type: f.Type, Key: f.Key, CorrelationID: f.CorrelationID, State: "dead",
		Since: f.Since, Until: f.Until, Error: f.Error, Fingerprint: f.Fingerprint,
	}
}

// groupsMost is how many groups are shown to whoever is asked.
const groupsMost = 100

func (c dlqReplay) Run(ctx context.Context) error {
	given := c.bulkFilter != bulkFilter{}
	switch {
	case c.ID == 0 && !given && !c.All:
		return usage("replay: give a letter's number, a filter, or --all")
	case c.ID != 0 && (given || c.All):
		return usage("replay: give a letter's number or a filter, and not both")
	case c.ID == 0 && c.Data != "":
		return usage("replay: --data is for one letter: give its number")
	case c.ID == 0 && (c.Rate < 1 || c.Rate > outbox.MaxReplayRate):
		return usage("--rate must be 1 to %d letters a second, and is %d", outbox.MaxReplayRate, c.Rate)
	case c.ID == 0:
		return c.many(ctx)
	}
	data, err := readData(c.Data)
	if err != nil {
		return err
	}
	return operate(ctx, func(o *outbox.Operator) error {
		r, err := o.ReplayEdited(ctx, c.ID, data, c.action(c.Force))
		if err != nil {
			return err
		}
		return c.print(handlers.NewReplaying(c.ID, r, data != nil), func(p *printer) {
			p.line("dead letter %d is being replayed by job %d", c.ID, r.JobID)
			printDiff(p, r.Diff)
			if data != nil && !r.Checked {
				p.line("whether the consumer's code takes the data was not checked")
			}
		})
	})
}

// many exits with 0 only when every letter was replayed and has succeeded.
func (c dlqReplay) many(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		if strings.TrimSpace(c.Reason) == "" {
			return outbox.ErrReasonRequired
		}
		groups, err := o.LetterGroups(ctx, c.filter(), nil, groupsMost)
		if err != nil {
			return err
		}
		if !c.Yes {
			if err := c.ask(groups); err != nil {
				return err
			}
		}
		op, err := o.ReplayAll(ctx, outbox.BulkReplay{Filter: c.filter(), Rate: c.Rate, NoCanary: c.NoCanary}, c.action(c.Force))
		if err != nil {
			return err
		}
		if !c.JSON {
			fmt.Fprintf(os.Stderr, "operation %d: %d letters, at most %d a second\n", op.ID, op.Total, op.Rate)
		}
		if !c.Detach {
			if op, err = c.followOperation(ctx, o, op.ID); err != nil {
				return err
			}
		}
		err = c.print(op, func(p *printer) { printOperation(p, op) })
		if err == nil && !c.Detach && op.Succeeded != op.Total {
			err = fmt.Errorf("replay: %d of %d letters did not succeed", op.Total-op.Succeeded, op.Total)
		}
		return err
	})
}

// ask shows what would be done and wants a yes. Who cannot be asked has to say so beforehand.
func (c dlqReplay) ask(groups []outbox.LetterGroup) error {
	if len(groups) == 0 {
		return errors.New("replay: no dead letter is as the filter says")
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return usage("replay: this is no terminal, on which one could be asked: give --yes")
	}
	t := table("LETTERS", "CONSUMER", "TYPES", "CAUSE")
	var letters int64
	for _, g := range groups {
		letters += g.Letters
		t.row(g.Letters, g.Consumer, strings.Join(g.Types, ","), g.Error)
	}
	p := &printer{w: os.Stderr}
	if p.table(t); p.err != nil {
		return p.err
	}
	fmt.Fprintf(os.Stderr, "Replay %d letters (yes or no)? ", letters)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "yes") && !strings.EqualFold(strings.TrimSpace(answer), "y") {
		return errors.New("replay: nothing is replayed")
	}
	return nil
}
