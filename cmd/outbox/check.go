package main

import (
	"context"
	"fmt"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

// checkCommand is outbox check. It only reads, and may run beside the service.
type checkCommand struct{}

func (checkCommand) Run(ctx context.Context) error {
	url, err := databaseURL()
	if err != nil {
		return err
	}
	pool, err := openPool(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	jobs, err := workers.NewJobs(pool, "")
	if err != nil {
		return err
	}
	report, err := outbox.NewOperator(pool, jobs, "", nil).Check(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%d events in the log (positions %d to %d), %d in the outbox\n", report.To-report.From, report.From+1, report.To, report.Outbox)
	for _, p := range report.Problems {
		fmt.Printf("%s  %s %s  %s\n", p.Kind, p.Consumer, p.EventID, p.Detail)
	}
	if n := len(report.Problems); n > 0 {
		return fmt.Errorf("check: %d problems", n)
	}
	fmt.Println("every event is in exactly one place for each of its consumers")
	return nil
}
