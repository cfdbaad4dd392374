package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const writeClients = 64

// write measures how many transactions a second the clients commit. Nobody works on what they leave. Each write has a
// key of its own, as a signup has.
type write struct {
	// tables get a row with each write.
	tables []string
	// prepare returns what one transaction does.
	prepare func(e *env) (func(ctx context.Context, id uuid.UUID) error, error)
}

func (w write) measure(ctx context.Context, e *env) ([]float64, error) {
	act, err := w.prepare(e)
	if err != nil {
		return nil, err
	}
	writers := &clients{count: writeClients, write: func(ctx context.Context, _ int, _ int64) error {
		return act(ctx, uuid.New())
	}}
	var rate float64
	err = writers.during(ctx, func() error {
		before, begun := writers.committed.Load(), time.Now()
		if !pause(ctx, e.size.write) {
			return ctx.Err()
		}
		rate = float64(writers.committed.Load()-before) / time.Since(begun).Seconds()
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, table := range w.tables {
		rows, err := countRows(ctx, e.pool, table)
		if err != nil {
			return nil, err
		}
		if committed := writers.committed.Load(); rows != committed {
			return nil, fmt.Errorf("%w: %d rows in %s after %d commits", errWrong, rows, table, committed)
		}
	}
	return []float64{rate}, nil
}

var (
	// writeStateOnly is the reference: one row in a transaction as any handler has it.
	writeStateOnly = write{
		tables: []string{"users"},
		prepare: func(e *env) (func(context.Context, uuid.UUID) error, error) {
			return func(ctx context.Context, id uuid.UUID) error {
				return pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error { return writeState(ctx, tx, id) })
			}, nil
		},
	}

	writeAppend = write{
		tables: []string{"users", "outbox"},
		prepare: func(e *env) (func(context.Context, uuid.UUID) error, error) {
			return func(ctx context.Context, id uuid.UUID) error {
				return outbox.InTx(ctx, e.pool, func(tx pgx.Tx) error {
					if err := writeState(ctx, tx, id); err != nil {
						return err
					}
					_, err := outbox.Append(ctx, tx, outbox.Event{Type: eventType, Key: id.String(), Data: payload{}})
					return err
				})
			}, nil
		},
	}

	writeRiver = write{
		tables: []string{"users", "river_job"},
		prepare: func(e *env) (func(context.Context, uuid.UUID) error, error) {
			client, err := newRiver(e.pool, func(known *river.Workers) {
				river.AddWorker(known, &completeTxWorker{pool: e.pool})
			})
			if err != nil {
				return nil, err
			}
			return func(ctx context.Context, id uuid.UUID) error {
				return pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
					if err := writeState(ctx, tx, id); err != nil {
						return err
					}
					_, err := client.InsertTx(ctx, tx, effectArgs{EventID: id, Key: id.String()}, nil)
					return err
				})
			}, nil
		},
	}

	// writeNotify is what many an outbox does: a plain row, and a NOTIFY in the same transaction.
	writeNotify = write{
		tables: []string{"users", "queue"},
		prepare: func(e *env) (func(context.Context, uuid.UUID) error, error) {
			data, err := json.Marshal(payload{})
			return func(ctx context.Context, id uuid.UUID) error {
				return pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
					if err := writeState(ctx, tx, id); err != nil {
						return err
					}
					batch := &pgx.Batch{}
					batch.Queue(`INSERT INTO queue (event_id, type, key, data) VALUES ($1, $2, $3, $4)`, id, eventType, id.String(), data)
					batch.Queue(`SELECT pg_notify('bench', '')`)
					return tx.SendBatch(ctx, batch).Close()
				})
			}, err
		},
	}
)
