package outbox

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// Schema is the PostgreSQL schema that holds the outbox's tables; empty: whatever the search_path finds.
// Its methods are the package's functions of the same names for a schema of its own.
type Schema string

// Append writes events into the outbox as part of tx: they exist if and only if tx commits. It returns the id of the
// first. It takes a pgx.Tx, so that an event without a transaction does not compile.
//
// It takes each key's advisory lock before the event's number is drawn and holds it until tx ends: transactions that
// append the same key wait for each other, and so commit in the order of their numbers. Append as late in the
// transaction as you can, and all events in one call: two transactions that append two keys in opposite order, in
// calls of their own, deadlock. Keep below 1,000 distinct keys a transaction (each lock takes a place in PostgreSQL's
// shared lock table).
//
// Inside a handler, through the handler's own tx, events are kept back and written together when its transaction ends. In a
// backfill they are checked and then left unwritten, unless it was begun with Backfill.Appends.
//
// Where ctx has a span, the events belong to its trace, unless they bring a trace context of their own: what becomes of them is shown
// below a span of this call, or, where ctx's is not recorded, below that one. A span stays also when tx is rolled back.
//
// An event that cannot be stored is refused with an *InvalidEventError before anything is written; tx stays usable.
func Append(ctx context.Context, tx pgx.Tx, event Event, more ...Event) (uuid.UUID, error) {
	return Schema("").Append(ctx, tx, event, more...)
}

// AppendAll is Append for any number of events; it returns their ids in the order given.
func AppendAll(ctx context.Context, tx pgx.Tx, events ...Event) ([]uuid.UUID, error) {
	return Schema("").AppendAll(ctx, tx, events...)
}

// Append is the package's Append for the tables in this schema.
func (s Schema) Append(ctx context.Context, tx pgx.Tx, event Event, more ...Event) (uuid.UUID, error) {
	ids, err := s.AppendAll(ctx, tx, append([]Event{event}, more...)...)
	if err != nil {
		return uuid.Nil, err
	}
	return ids[0], nil
}

// AppendAll is the package's AppendAll for the tables in this schema.
func (s Schema) AppendAll(ctx context.Context, tx pgx.Tx, events ...Event) (ids []uuid.UUID, err error) {
	if len(events) == 0 {
		return nil, nil
	}
	if l, ok := tx.(laterTx); ok {
		tx = l.Tx // an append waits for nothing anyway
	}
	d := deliveryFrom(ctx)
	by := producer(ctx, d)
	rows := make([]stored, len(events))
	ids = make([]uuid.UUID, len(events))
	var span appendSpan
	if d == nil || !d.muted {
		span = startAppend(ctx, events)
		defer func() { span.end(rows, err) }()
	}
	for i, e := range events {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("outbox: draw an event id: %w", err)
		}
		if e.CorrelationID == "" {
			e.CorrelationID = CorrelationID(ctx)
		}
		if e.CausationID == uuid.Nil && d != nil {
			e.CausationID = d.eventID
		}
		if e.Source == "" {
			e.Source = by
		}
		if e.TraceParent == "" {
			e.TraceParent = span.traceParent
		}
		if rows[i], err = e.encode(id); err != nil {
			return nil, err
		}
		ids[i] = id
	}
	if d != nil && d.tx != nil && pgx.Tx(d.tx) == tx {
		if !d.muted {
			d.tx.appended = append(d.tx.appended, rows...)
		}
		return ids, nil
	}
	if p, ok := tx.(*producerTx); ok && p.keep(s, rows) {
		return ids, nil
	}
	if err := s.write(ctx, tx, rows); err != nil {
		return nil, err
	}
	return ids, nil
}

// write locks the keys and inserts the rows, in one round trip. The locks are a statement of their own and come
// first: a number that is drawn before the lock is held may commit after a later one.
func (s Schema) write(ctx context.Context, tx pgx.Tx, rows []stored) error {
	if len(rows) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	s.queueWrite(batch, rows)
	failpoint.At(failpoint.ProducerAppendBefore)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("outbox: append: %w", err)
	}
	failpoint.At(failpoint.ProducerAppendAfter)
	return nil
}

func (s Schema) queueWrite(batch *pgx.Batch, rows []stored) {
	var keys []string // of those that get a number
	for i := range rows {
		if !rows[i].later() {
			keys = append(keys, rows[i].Key)
		}
	}
	alone := len(keys) == 1
	if len(keys) > 1 {
		slices.SortFunc(keys, strings.Compare)
		keys = slices.Compact(keys)
	}
	if len(keys) > 0 && (!alone || blocking(rows)) {
		batch.Queue(s.sql(outboxdb.OutboxLockKeys), keys)
		alone = false
	}
	for i := range rows {
		r := &rows[i]
		args := []any{
			[16]byte(r.ID), r.Type, r.Key, r.Data, r.CorrelationID, r.CausationID, r.TraceParent, r.Source, r.SchemaVersion, r.OccurredAt,
		}
		switch {
		case r.later():
			batch.Queue(s.sql(outboxdb.ScheduledInsert), append(args, r.NotBefore)...)
		case r.Blocks:
			batch.Queue(s.sql(outboxdb.OutboxInsertBlocking), append(args, r.NotBefore)...)
		case alone:
			batch.Queue(s.sql(outboxdb.OutboxAppendOne), args...)
		default:
			batch.Queue(s.sql(outboxdb.OutboxInsert), args...)
		}
	}
}

func blocking(rows []stored) bool {
	return slices.ContainsFunc(rows, func(r stored) bool { return r.Blocks })
}
