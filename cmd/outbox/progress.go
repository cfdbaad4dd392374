package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	// followEvery is how often an operation is looked at, followLines how often a line says how far it is where there is no terminal.
	followEvery = 250 * time.Millisecond
	followLines = 5 * time.Second
	barWidth    = 30
)

// follow waits until an operation has ended, and says on standard error how far it is. Where the wait is interrupted, the operation goes on.
func follow(ctx context.Context, o *outbox.Operator, id int64) (*outbox.OperationDetail, error) {
	width, said := terminalWidth(os.Stderr), time.Now()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		op, err := o.Operation(ctx, id)
		if err != nil {
			return nil, err
		}
		switch line := progressLine(op.Operation); {
		case width > 0:
			fmt.Fprint(os.Stderr, "\r\x1b[K"+cut(line, width-1))
			if op.EndedAt != nil {
				fmt.Fprintln(os.Stderr)
			}
		case time.Since(said) >= followLines:
			said = time.Now()
			fmt.Fprintln(os.Stderr, line)
		}
		if op.EndedAt != nil {
			return op, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("operation %d goes on without anybody looking: outbox operations show %d, or stop %d", id, id, id)
		case <-tick.C:
		}
	}
}

// progressLine is a bar with its numbers.
func progressLine(op outbox.Operation) string {
	settled := op.Succeeded + op.FailedAgain + op.Skipped
	full := int(settled * barWidth / max(1, op.Total))
	line := fmt.Sprintf("[%s%s] %d/%d %s", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), settled, op.Total, op.State)
	if op.FailedAgain > 0 {
		line += fmt.Sprintf(", %d failed again", op.FailedAgain)
	}
	if op.Skipped > 0 {
		line += fmt.Sprintf(", %d skipped", op.Skipped)
	}
	return line
}

func cut(line string, width int) string {
	if r := []rune(line); len(r) > width {
		return string(r[:width])
	}
	return line
}
