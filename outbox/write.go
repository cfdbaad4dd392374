package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// finish records what became of the events that the batch got to, moves the cursor, and commits, in one round trip
// with what handlers have left to send. It appends last: the locks of the appended keys are held until the commit.
func (b *batch) finish(ctx context.Context) error {
	var (
		items     = b.items[:b.done]
		processed = map[int64][]uuid.UUID{} // by run
		parks     = outboxdb.WaitingInsertParams{Consumer: b.c.Name, Lane: b.lane, Run: b.state.Run}
		gone      = outboxdb.WaitingReleaseParams{Consumer: b.c.Name, Build: b.cfg.Build}
		held      []*item
		twice     []uuid.UUID
	)
	b.counts = [parked + 1]int{}
	for i := range items {
		it := &items[i]
		b.counts[it.outcome]++
		if it.outcome == parked {
			if !b.released {
				parks.Keys = append(parks.Keys, it.event.Key)
				parks.Positions = append(parks.Positions, it.event.Pos)
				parks.EventIds = append(parks.EventIds, it.event.ID)
			}
			continue
		}
		if b.released {
			gone.Keys, gone.Positions = append(gone.Keys, it.event.Key), append(gone.Positions, it.event.Pos)
		}
		switch it.outcome {
		case applied:
			processed[it.run] = append(processed[it.run], it.event.ID)
		case duplicate:
			twice = append(twice, it.event.ID)
		case failed, suspect, external, deferred:
			held = append(held, it)
		case pending, parked:
			return errors.New("outbox: an event was left without an outcome")
		}
	}
	b.tx.belongs(ours)
	if len(held) > 0 {
		// The jobs need a round trip of their own. Nothing of a handler may fail after they are in.
		if err := b.tx.flush(ctx); err != nil {
			return err
		}
	}
	failpoint.At(failpoint.DrainDedupe)
	db := b.queued(b.tx.batch)
	_ = b.q.EngineTakesBack(ctx, db)
	for _, id := range twice {
		_ = b.logAttempt(ctx, db, b.c.Name, id, 1, "duplicate", nil)
	}
	for run, ids := range processed {
		_ = b.q.ProcessedInsert(ctx, db, outboxdb.ProcessedInsertParams{Dedupe: dedupe(b.state.Dedupe, run), EventIds: ids})
		if run != 0 {
			_ = b.q.LettersReplayed(ctx, db, outboxdb.LettersReplayedParams{Consumer: b.c.Name, EventIds: ids, Run: run})
		}
	}
	if len(parks.Keys) > 0 {
		failpoint.At(failpoint.DrainPark)
		_ = b.q.WaitingInsert(ctx, db, parks)
	}
	if len(gone.Keys) > 0 {
		for key, i := range b.lift {
			gone.HeldKeys, gone.HeldIds = append(gone.HeldKeys, key), append(gone.HeldIds, b.lifting[i].EventID)
		}
		_ = b.q.WaitingRelease(ctx, db, gone)
	}
	if err := b.writeHolds(ctx, db, held); err != nil {
		return err
	}
	if b.released {
		ids := make([]uuid.UUID, len(b.lifting))
		for i, h := range b.lifting {
			ids[i] = h.EventID
		}
		_ = b.q.HoldLift(ctx, db, outboxdb.HoldLiftParams{Consumer: b.c.Name, EventIds: ids})
	} else {
		b.advance()
	}
	if b.blamed && len(items) > 0 && items[0].outcome == suspect {
		_ = b.q.DrainForgive(ctx, db, outboxdb.DrainForgiveParams{Consumer: b.c.Name, Lane: b.lane})
	}
	if len(b.tx.appended) > 0 {
		b.schema.queueWrite(b.tx.batch, b.tx.appended)
	}
	b.at = unknown
	b.commit()
	failpoint.At(failpoint.DrainCommitBefore)
	began := time.Now()
	if err := b.tx.flush(ctx); err != nil {
		return err
	}
	b.pace.took(b.counts[applied], time.Since(began))
	return nil
}

// advance moves the cursor past the events that the batch got to. What lies beyond the last of them and was not wanted is
// passed only where such were met before, or nothing else was found: looking for its end costs a scan. How many events the cursor has passed
// is counted with it: the window holds what is wanted, and nothing else.
func (b *batch) advance() {
	last, past := b.state.Pos, false
	switch {
	case b.done < len(b.items):
		last, b.full = b.items[b.done].event.Pos-1, true
	case b.done > 0:
		last = b.items[b.done-1].event.Pos
		past = !b.full && b.pace.passes()
	default:
		past = true
	}
	b.tx.batch.Queue(b.schema.sql(outboxdb.DrainAdvance), int64(b.done), b.c.Name, b.lane, last, past, b.state.Pos, b.state.Head, int32(drainScan)).
		QueryRow(func(row pgx.Row) error {
			var pos int64
			if err := row.Scan(&pos); errors.Is(err, pgx.ErrNoRows) {
				return nil // it stands there already
			} else if err != nil {
				return err
			}
			if past {
				b.pace.passed(pos > last)
			}
			return nil
		})
	if b.state.Run != 0 { // where it was passed, the cursor goes back to where it is to go on
		b.tx.batch.Queue(b.schema.sql(outboxdb.DrainEndRun), b.c.Name, b.lane)
	}
}

// commit queues the commit and, after it, a last look at the lane: its lock is free again, and a wake-up that came
// while it was held found it taken and left.
func (b *batch) commit() {
	if b.counts[applied] == 0 {
		// No handler did anything: what the batch wrote are notes of the engine, and the next one would make them again.
		b.tx.batch.Queue(outboxdb.EngineCommitsLater)
	}
	b.tx.batch.Queue("commit")
	b.tx.batch.Queue(b.schema.sql(outboxdb.DrainPending), b.lane, b.c.Name, DrainQueue(b.c.Name)).QueryRow(func(row pgx.Row) error {
		return row.Scan(&b.pending)
	})
}
