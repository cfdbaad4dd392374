package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const eventType = "bench.happened"

// payload is the data of every event.
type payload struct {
	// I numbers the events of a run; N those of a key, so that the order of the effects can be checked.
	I int64 `json:"i"`
	N int64 `json:"n"`
}

// event is one that a case has made, for whichever system.
type event struct {
	id   uuid.UUID
	key  string
	data payload
}

// maker makes events over a number of keys, drawn at random but the same in every run.
type maker struct {
	draw  *rand.Rand
	keys  []string
	next  []int64
	count int64
}

func newMaker(keys int) *maker {
	m := &maker{draw: rand.New(rand.NewPCG(1, uint64(keys))), keys: make([]string, keys), next: make([]int64, keys)}
	for i := range m.keys {
		m.keys[i] = fmt.Sprintf("key-%d", i)
	}
	return m
}

func (m *maker) make(n int) ([]event, error) {
	events := make([]event, n)
	for i := range events {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, err
		}
		k := m.draw.IntN(len(m.keys))
		events[i] = event{id: id, key: m.keys[k], data: payload{I: m.count, N: m.next[k]}}
		m.next[k]++
		m.count++
	}
	return events, nil
}

// fillOutbox writes events into the outbox in one transaction. One writer alone commits in the order of its numbers, so no
// key has to be locked.
func fillOutbox(ctx context.Context, pool *pgxpool.Pool, events []event) error {
	_, err := pool.CopyFrom(ctx, pgx.Identifier{"outbox"}, []string{"id", "type", "key", "data", "correlation_id"},
		pgx.CopyFromSlice(len(events), func(i int) ([]any, error) {
			e := events[i]
			data, err := json.Marshal(e.data)
			return []any{e.id, eventType, e.key, data, e.id.String()}, err
		}))
	if err != nil {
		return fmt.Errorf("fill the outbox: %w", err)
	}
	return nil
}

// warmThenTimed has a system do a few events, and then those that count: by then its connections are open, their server
// processes have taken hold of its memory, and statements are prepared and planned. It returns events per second.
func warmThenTimed(warm, timed int, run func(n int) (time.Duration, error)) ([]float64, error) {
	if _, err := run(warm); err != nil {
		return nil, fmt.Errorf("warm-up: %w", err)
	}
	took, err := run(timed)
	return []float64{float64(timed) / took.Seconds()}, err
}

// settle leaves the server as it would be some time after the events came in, so that no run pays for its preparation.
func settle(ctx context.Context, pool *pgxpool.Pool) error {
	for _, sql := range []string{`ANALYZE`, `CHECKPOINT`} {
		if _, err := pool.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// counter counts what handlers have done, committed or not; it says when asking the database is worth while.
type counter interface{ Load() int64 }

// awaitEffects waits until want effects are committed and returns when that was seen. Until the handlers have done
// that many it asks nothing of the database, and then rarely as long as much is missing: counting costs the system
// under test.
func awaitEffects(ctx context.Context, pool *pgxpool.Pool, done counter, want int64) (time.Time, error) {
	begun := time.Now()
	var have int64
	for {
		for done.Load() < want {
			if !pause(ctx, 2*time.Millisecond) {
				return time.Time{}, fmt.Errorf("%w: %d handled of %d", ctx.Err(), done.Load(), want)
			}
		}
		asked := time.Now()
		if err := pool.QueryRow(ctx, `SELECT count(*) FROM effects`).Scan(&have); err != nil {
			return time.Time{}, fmt.Errorf("count effects (%d of %d before): %w", have, want, err)
		}
		if have >= want {
			return asked, nil
		}
		rest := time.Duration(float64(asked.Sub(begun)) * float64(want-have) / float64(max(have, 1)) / 2)
		if !pause(ctx, min(max(rest, 3*time.Millisecond), 250*time.Millisecond)) {
			return time.Time{}, fmt.Errorf("%w: %d effects of %d", ctx.Err(), have, want)
		}
	}
}
