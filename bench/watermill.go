package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
)

const (
	watermillConsumer = "watermill"
	watermillTopic    = "bench"
)

// watermillBest tries the batch sizes of this size and gives the best rate.
func watermillBest(ctx context.Context, e *env) ([]float64, error) {
	best := 0.0
	for i, batch := range e.size.watermillBatches {
		if i > 0 {
			if _, err := e.pool.Exec(ctx, `TRUNCATE effects, dedupe; DROP TABLE watermill_bench, watermill_offsets_bench`); err != nil {
				return nil, err
			}
		}
		maker := newMaker(10_000)
		rate, err := warmThenTimed(e.size.riverWarmEvents, e.size.watermillEvents, func(n int) (time.Duration, error) {
			return subscribeAll(ctx, e, batch, maker, n)
		})
		if err != nil {
			return nil, fmt.Errorf("batch %d: %w", batch, err)
		}
		best = max(best, rate[0])
	}
	return []float64{best}, nil
}

// watermillMessage is what a message carries.
type watermillMessage struct {
	Key string `json:"key"`
	N   int64  `json:"n"`
}

// subscribeAll publishes so many messages and says how long it took to apply them. It has one subscriber work through a topic: a topic is in order, so a second one would wait. The handler
// does dedupe and effect in one statement, in the transaction that moves the subscriber's offset.
func subscribeAll(ctx context.Context, e *env, batch int, maker *maker, n int) (time.Duration, error) {
	poll := 10 * time.Millisecond // the default of a second would be lost at the start
	subscriber, err := wsql.NewSubscriber(wsql.BeginnerFromPgx(e.pool), wsql.SubscriberConfig{
		ConsumerGroup:    watermillConsumer,
		PollInterval:     poll,
		RetryInterval:    poll,
		SchemaAdapter:    wsql.DefaultPostgreSQLSchema{SubscribeBatchSize: batch},
		OffsetsAdapter:   wsql.DefaultPostgreSQLOffsetsAdapter{},
		InitializeSchema: true,
	}, nil)
	if err != nil {
		return 0, err
	}
	if err := subscriber.SubscribeInitialize(watermillTopic); err != nil {
		return 0, err
	}
	if err := fillTopic(ctx, e, maker, n); err != nil {
		return 0, err
	}
	if err := settle(ctx, e.pool); err != nil {
		return 0, err
	}
	begun := time.Now()
	messages, err := subscriber.Subscribe(ctx, watermillTopic)
	if err != nil {
		return 0, err
	}
	var done atomic.Int64
	done.Store(maker.count - int64(n))
	handled := make(chan error, 1)
	go func() { handled <- handleMessages(messages, &done) }()
	ended, err := awaitEffects(ctx, e.pool, &done, maker.count)
	if err := errors.Join(err, subscriber.Close(), <-handled); err != nil {
		return 0, err
	}
	expected := expectation{consumers: []string{watermillConsumer}, events: maker.count, dedupe: "dedupe", ordered: true}
	return ended.Sub(begun), expected.check(ctx, e.pool)
}

// handleMessages ends when the subscriber closes the channel, and remembers the first error.
func handleMessages(messages <-chan *message.Message, done *atomic.Int64) error {
	var failed error
	for m := range messages {
		if err := handleMessage(m); err != nil {
			failed = errors.Join(failed, err)
			m.Nack()
			continue
		}
		done.Add(1)
		m.Ack()
	}
	return failed
}

func handleMessage(m *message.Message) error {
	tx, found := wsql.TxFromContext(m.Context())
	if !found {
		return errors.New("the message came without a transaction")
	}
	var payload watermillMessage
	if err := json.Unmarshal(m.Payload, &payload); err != nil {
		return err
	}
	_, err := tx.ExecContext(m.Context(), effectOnce, watermillConsumer, payload.Key, payload.N, m.UUID)
	return err
}

// fillTopic writes what Watermill's publisher would, but at once. A few hundred messages to a transaction, as a busy
// producer would leave them: a reader sorts what it has before it by transaction.
func fillTopic(ctx context.Context, e *env, maker *maker, n int) error {
	events, err := maker.make(n)
	if err != nil {
		return err
	}
	for len(events) > 0 {
		some := events[:min(500, len(events))]
		events = events[len(some):]
		err := pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
			var xid uint64
			if err := tx.QueryRow(ctx, `SELECT pg_current_xact_id()::text::bigint`).Scan(&xid); err != nil {
				return err
			}
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"watermill_" + watermillTopic},
				[]string{"uuid", "payload", "metadata", "transaction_id"},
				pgx.CopyFromSlice(len(some), func(i int) ([]any, error) {
					ev := some[i]
					payload, err := json.Marshal(watermillMessage{Key: ev.key, N: ev.data.N})
					return []any{ev.id.String(), payload, []byte(`{}`), xid}, err
				}))
			return err
		})
		if err != nil {
			return fmt.Errorf("fill the topic: %w", err)
		}
	}
	return nil
}
