package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// ReplayAttempts is how many attempts a replayed event gets: an operator is watching, and wants an answer soon.
const ReplayAttempts = 3

// Operator is what people who run the service do: look at events and dead letters, replay and dismiss them.
// It needs no running workers in its process. It is safe for concurrent use.
type Operator struct {
	pool   *pgxpool.Pool
	jobs   Jobs
	schema Schema
	q      *outboxdb.Queries
	log    *slog.Logger
	reg    *Registry // nil: it has no code

	rehearsing chan struct{} // one at a time
}

// NewOperator returns an operator over the tables that pool finds in schema (empty: by the search_path).
func NewOperator(pool *pgxpool.Pool, jobs Jobs, schema Schema, logger *slog.Logger) *Operator {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Operator{pool: pool, jobs: jobs, schema: schema, q: outboxdb.New(), log: logger, rehearsing: make(chan struct{}, 1)}
}

// WithConsumers returns an operator that has the consumers' code, and so can rehearse, and check edits. They need not run in this process.
func (o *Operator) WithConsumers(reg *Registry) *Operator {
	with := *o
	with.reg = reg
	return &with
}

// Action says who does something, and why.
type Action struct {
	Actor string
	// Reason is kept in the audit, at most 1,000 characters; some operations require one (ErrReasonRequired).
	Reason string
	// Force overrules what protects the order of a key, and what may have been done outside. It takes a reason.
	Force bool
}

// record leaves a line in the audit and in the event's delivery log.
func (o *Operator) record(ctx context.Context, db outboxdb.DBTX, l outboxdb.LetterGetRow, action string, by Action, detail map[string]any) error {
	if detail == nil {
		detail = map[string]any{}
	}
	detail["consumer"], detail["event_id"], detail["correlation_id"] = l.Consumer, l.EventID, l.CorrelationID
	encoded, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("encode audit detail: %w", err)
	}
	if err := o.q.AuditInsert(ctx, db, outboxdb.AuditInsertParams{
		Actor: by.Actor, Action: action, Target: fmt.Sprintf("dead letter %d", l.ID), Reason: by.Reason, Detail: encoded,
	}); err != nil {
		return err
	}
	note := "by " + by.Actor
	if by.Reason != "" {
		note += ": " + by.Reason
	}
	return o.q.DeliveryLogInsert(ctx, db, outboxdb.DeliveryLogInsertParams{
		Consumer: l.Consumer, EventID: l.EventID, Attempt: l.Attempts, Outcome: map[string]string{"replay": "replayed", "dismiss": "dismissed"}[action], Error: &note,
	})
}

// audit leaves a line in the audit and returns its number.
func (o *Operator) audit(ctx context.Context, db outboxdb.DBTX, target, action string, by Action, detail any) (int64, error) {
	encoded, err := json.Marshal(detail)
	if err != nil {
		return 0, fmt.Errorf("encode audit detail: %w", err)
	}
	return o.q.AuditOpen(ctx, db, outboxdb.AuditOpenParams{Actor: by.Actor, Action: action, Target: target, Reason: by.Reason, Detail: encoded})
}

func (o *Operator) inTx(ctx context.Context, fn func(tx pgx.Tx, db outboxdb.DBTX) error) error {
	return pgx.BeginTxFunc(ctx, o.pool, pgx.TxOptions{BeginQuery: beginEngine}, func(tx pgx.Tx) error {
		return fn(tx, o.schema.on(tx))
	})
}

// notFound makes ErrNotFound of an empty result.
func notFound(what string, err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%w: no such %s", ErrNotFound, what)
	}
	return fmt.Errorf("outbox: read %s: %w", what, err)
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
