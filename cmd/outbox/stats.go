package main

import (
	"context"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// statsCommand is outbox stats.
type statsCommand struct {
	output
}

func (c statsCommand) Run(ctx context.Context) error {
	return operate(ctx, func(o *outbox.Operator) error {
		s, err := o.Stats(ctx)
		if err != nil {
			return err
		}
		return c.print(s, func(p *printer) { printStats(p, s) })
	})
}

func printStats(p *printer, s *outbox.Stats) {
	relay := "a relay leads"
	if !s.Leads {
		relay = "no relay leads"
	}
	p.line("%s; %d events were ever moved into the log", relay, s.Head)
	counted := ""
	if s.Outbox >= outbox.StatsMostOutbox {
		counted = " or more"
	}
	p.line("in the outbox: %d%s, the oldest for %s; in quarantine: %d", s.Outbox, counted, seconds(s.OutboxOldestAge), s.Quarantined)
	if !s.Counted {
		p.line("what follows was never counted: no relay has led yet")
	} else {
		p.line("what follows was counted %s ago", seconds(s.Age))
	}
	t := table("CONSUMER", "LAG", "OLDEST", "IN FLIGHT", "HELD KEYS", "WAITING", "DEAD", "LETTERS", "")
	for _, c := range s.Consumers {
		state := ""
		switch {
		case c.Paused:
			state = "paused"
		case !c.Counted:
			state = "not counted yet"
		}
		t.row(c.Name, c.Lag, seconds(c.OldestAge), c.InFlight, c.HeldKeys, c.Waiting, c.Dead, c.Letters, state)
	}
	p.table(t)
	if len(s.Jobs) > 0 {
		t := table("QUEUE", "STATE", "JOBS")
		for _, j := range s.Jobs {
			t.row(j.Queue, j.State, j.Jobs)
		}
		p.table(t)
	}
}

// seconds shortens an age to what people read.
func seconds(age float64) time.Duration {
	return time.Duration(age * float64(time.Second)).Round(time.Second)
}
