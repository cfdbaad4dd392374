package main

import (
	"context"

	"github.com/pgoutbox/pgoutbox/migrations"
)

// migrateCommand is outbox migrate. Several may run at once: one works, the others wait for it. Each of them answers with where the schema is.
type migrateCommand struct {
	Up     migrateUp     `cmd:"" help:"Bring River's, the outbox's and the shop's schema to the newest version."`
	Down   migrateDown   `cmd:"" help:"Take one step back, the shop's and the outbox's. This loses what the step held."`
	Status migrateStatus `cmd:"" help:"Show what is applied and what is pending."`
}

type (
	migrateUp     struct{ output }
	migrateDown   struct{ output }
	migrateStatus struct{ output }
)

func (c migrateUp) Run(ctx context.Context) error {
	url, err := sessionURL()
	if err != nil {
		return err
	}
	if err := migrations.Up(ctx, url, migrations.Options{Shop: true, Logger: newLogger()}); err != nil {
		return err
	}
	return migrateStatus(c).Run(ctx)
}

func (c migrateDown) Run(ctx context.Context) error {
	url, err := sessionURL()
	if err != nil {
		return err
	}
	if err := migrations.Down(ctx, url, migrations.Options{Shop: true, Logger: newLogger()}); err != nil {
		return err
	}
	return migrateStatus(c).Run(ctx)
}

func (c migrateStatus) Run(ctx context.Context) error {
	url, err := sessionURL()
	if err != nil {
		return err
	}
	rows, err := migrations.Status(ctx, url, migrations.Options{Shop: true})
	if err != nil {
		return err
	}
	t := table("SET", "VERSION", "NAME", "APPLIED")
	for _, r := range rows {
		applied := "pending"
		if !r.Pending() {
			applied = r.AppliedAt.UTC().Format("2006-01-02 15:04:05Z")
		}
		t.row(r.Set, r.Version, r.Name, applied)
	}
	return c.print(whole(rows), func(p *printer) { p.table(t) })
}
