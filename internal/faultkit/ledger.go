package faultkit

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const insertEffect = `insert into faults.effects (consumer, key, event_id, n) values ($1, $2, $3, $4)`

func effect(e outbox.Received[Payload]) []any { return []any{e.Consumer, e.Key, e.ID, e.Data.N} }

// note queues the effect of an event.
func note(batch *pgx.Batch, e outbox.Received[Payload]) { batch.Queue(insertEffect, effect(e)...) }

func registerLedgers(reg *outbox.Registry, deps Deps) {
	outbox.Handle(reg, Ledger, func(ctx context.Context, _ pgx.Tx, e outbox.Received[Payload]) error {
		if deps.Control == NoDedupe {
			_, err := deps.Pool.Exec(ctx, insertEffect, effect(e)...)
			return err
		}
		note(outbox.Batch(ctx), e)
		return nil
	}, outbox.On(Noted))

	outbox.HandleBatch(reg, LedgerSet, noteAll, outbox.On(Noted))
}

// noteAll writes the effects of a set of events, in the order in which they came.
func noteAll(ctx context.Context, tx pgx.Tx, events []outbox.Received[Payload]) error {
	var (
		keys    = make([]string, len(events))
		ids     = make([]uuid.UUID, len(events))
		numbers = make([]int64, len(events))
	)
	for i, e := range events {
		keys[i], ids[i], numbers[i] = e.Key, e.ID, e.Data.N
	}
	_, err := tx.Exec(ctx, `insert into faults.effects (consumer, key, event_id, n)
		select $1, e.key, e.id, e.n from unnest($2::text[], $3::uuid[], $4::bigint[]) with ordinality as e (key, id, n, place) order by e.place`,
		LedgerSet, keys, ids, numbers)
	return err
}

func registerFanout(reg *outbox.Registry) {
	outbox.Handle(reg, Fanout, func(ctx context.Context, tx pgx.Tx, e outbox.Received[Payload]) error {
		var events [3]outbox.Event
		for i := range events {
			events[i] = outbox.Event{Type: Noted, Key: fmt.Sprintf("%s/%d", e.Key, i+1), Data: Payload{From: &e.ID}}
		}
		if _, err := outbox.AppendAll(ctx, tx, events[:]...); err != nil {
			return err
		}
		note(outbox.Batch(ctx), e)
		return nil
	}, outbox.On(Fanned))
}
