package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	// followEvery is how often something that takes a while is looked at, and drawEvery how often its bar is drawn.
	followEvery = 250 * time.Millisecond
	drawEvery   = 100 * time.Millisecond
	barWidth    = 30
)

// bar says on the standard error how far something is, to somebody who looks: on a terminal, and not where the answer is for a program.
type bar struct {
	w     io.Writer
	width int // 0: nobody looks
	drawn time.Time
}

func (o output) bar() *bar {
	b := &bar{w: os.Stderr}
	if !o.JSON {
		b.width = terminalWidth(os.Stderr)
	}
	return b
}

// draw shows how much is done.
func (b *bar) draw(done, total int64, said string) {
	if b.width == 0 || time.Since(b.drawn) < drawEvery && done < total {
		return
	}
	b.drawn = time.Now()
	full := barWidth
	if total > 0 {
		full = int(min(max(done, 0), total) * barWidth / total)
	}
	line := fmt.Sprintf("[%s%s] %d/%d %s", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), done, total, said)
	_, _ = fmt.Fprint(b.w, "\r\x1b[K"+cut(printable(line), b.width-1)) // what is to be told is the answer
}

// end leaves the bar as it is, and what is printed next to a line of its own.
func (b *bar) end() {
	if !b.drawn.IsZero() {
		_, _ = fmt.Fprintln(b.w)
	}
}

// follow looks again and again until something has ended. Where the wait is interrupted, that goes on, and goesOn says how it is seen again.
func (b *bar) follow(ctx context.Context, look func() (ended bool, err error), goesOn string) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	defer b.end()
	for {
		ended, err := look()
		switch {
		case ctx.Err() != nil && !ended:
			return errors.New(goesOn)
		case err != nil || ended:
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// followOperation waits until an operation has ended.
func (o output) followOperation(ctx context.Context, by *outbox.Operator, id int64) (op *outbox.OperationDetail, err error) {
	b := o.bar()
	err = b.follow(ctx, func() (bool, error) {
		if op, err = by.Operation(ctx, id); err != nil {
			return false, err
		}
		said := op.State
		if op.FailedAgain > 0 {
			said += fmt.Sprintf(", %d failed again", op.FailedAgain)
		}
		if op.Skipped > 0 {
			said += fmt.Sprintf(", %d skipped", op.Skipped)
		}
		b.draw(op.Succeeded+op.FailedAgain+op.Skipped, op.Total, said)
		return op.EndedAt != nil, nil
	}, fmt.Sprintf("operation %d goes on without anybody looking: outbox operations show %d, or stop %d", id, id, id))
	return op, err
}

// followBackfill waits until a backfill has ended.
func (o output) followBackfill(ctx context.Context, by *outbox.Operator, id int64) (s *outbox.BackfillStatus, err error) {
	b := o.bar()
	err = b.follow(ctx, func() (bool, error) {
		if s, err = by.BackfillStatus(ctx, id); err != nil {
			return false, err
		}
		said := s.State
		if s.Held+s.Waiting > 0 {
			said += fmt.Sprintf(", %d held and %d waiting behind them", s.Held, s.Waiting)
		}
		b.draw(s.Events-s.Ahead, s.Events, said)
		return s.State != "running", nil
	}, fmt.Sprintf("backfill %d goes on without anybody looking: outbox backfills show %d, or stop %d", id, id, id))
	return s, err
}
