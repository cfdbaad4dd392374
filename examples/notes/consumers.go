package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// consumers are what reacts to events. tell calls the outside.
func consumers(tell func(ctx context.Context, id uuid.UUID, n note) error) *outbox.Registry {
	reg := outbox.NewRegistry()

	// Work in the database: it commits together with the fact that the event is processed, so it happens once.
	outbox.Handle(reg, "statistics", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		tag, err := tx.Exec(ctx, `UPDATE notebooks SET notes = notes + 1 WHERE name = $1`, e.Data.Notebook)
		if err == nil && tag.RowsAffected() == 0 {
			// No further attempt mends this; somebody has to look at it.
			return outbox.Permanent(fmt.Errorf("there is no notebook %q", e.Data.Notebook))
		}
		return err
	}, outbox.On("note.taken"))

	// A call to the outside, in no transaction: it gets the event's id, by which the other side knows a second call.
	outbox.HandleExternal(reg, "announcer", func(ctx context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, tell(ctx, e.ID, e.Data)
	}, outbox.On("note.taken"))

	return reg
}

// announce stands for a call to another service.
func announce(ctx context.Context, id uuid.UUID, n note) error {
	slog.InfoContext(ctx, "announced", "event_id", id, "notebook", n.Notebook)
	return nil
}
