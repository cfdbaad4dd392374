package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
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
}

// NewOperator returns an operator over the tables that pool finds in schema (empty: by the search_path).
func NewOperator(pool *pgxpool.Pool, jobs Jobs, schema Schema, logger *slog.Logger) *Operator {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Operator{pool: pool, jobs: jobs, schema: schema, q: outboxdb.New(), log: logger}
}

// Action says who does something, and why.
type Action struct {
	Actor string
	// Reason is kept in the audit, at most 1,000 characters; some operations require one (ErrReasonRequired).
	Reason string
	// Force overrules what protects the order of a key. It takes a reason.
	Force bool
}

// LetterFilter chooses dead letters; empty fields choose all.
type LetterFilter struct {
	Consumer, Type, Key, CorrelationID string
	// State is dead, replaying, replayed or dismissed.
	State        string
	Since, Until time.Time
	// Error is a part of the last attempt's error, in any case.
	Error string
}

// LetterSummary is a dead letter without its event's data.
type LetterSummary struct {
	ID            int64     `json:"id"`
	Consumer      string    `json:"consumer"`
	EventID       uuid.UUID `json:"event_id"`
	Type          string    `json:"type"`
	Key           string    `json:"key"`
	CorrelationID string    `json:"correlation_id"`
	State         string    `json:"state"`
	// Skipped says that later events of the key did not wait for this one (Skip).
	Skipped     bool      `json:"skipped"`
	Attempts    int       `json:"attempts"`
	Replays     int       `json:"replays"`
	Error       string    `json:"error"`
	DiscardedAt time.Time `json:"discarded_at"`
	ChangedAt   time.Time `json:"changed_at"`
}

// AttemptError is one failed attempt of a delivery.
type AttemptError struct {
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`
	Error   string    `json:"error"`
}

// WaitingEvent is an event that waits behind a held one of its key.
type WaitingEvent struct {
	EventID    uuid.UUID `json:"event_id"`
	Type       string    `json:"type"`
	Position   int64     `json:"position"`
	OccurredAt time.Time `json:"occurred_at"`
	Since      time.Time `json:"waiting_since"`
}

// Letter is a dead letter whole.
type Letter struct {
	LetterSummary
	Data   json.RawMessage `json:"data"`
	Errors []AttemptError  `json:"errors"`
	// Waiting are the first of the events behind it, WaitingCount how many there are.
	Waiting      []WaitingEvent `json:"waiting"`
	WaitingCount int            `json:"waiting_count"`
}

// Letters returns dead letters, the newest first, at most limit of them and older than the letter before (0: from the
// newest).
func (o *Operator) Letters(ctx context.Context, f LetterFilter, before int64, limit int) ([]LetterSummary, error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	rows, err := o.q.LetterList(ctx, o.schema.on(o.pool), outboxdb.LetterListParams{
		BeforeID: before, Most: int32(limit), Consumer: given(f.Consumer), Type: given(f.Type), Key: given(f.Key),
		CorrelationID: given(f.CorrelationID), State: given(f.State), Error: given(f.Error),
		Since: givenTime(f.Since), Until: givenTime(f.Until),
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: list dead letters: %w", err)
	}
	letters := make([]LetterSummary, len(rows))
	for i, r := range rows {
		letters[i] = LetterSummary{
			ID: r.ID, Consumer: r.Consumer, EventID: r.EventID, Type: r.Type, Key: r.Key, CorrelationID: r.CorrelationID,
			State: r.State, Skipped: r.Skipped, Attempts: int(r.Attempts), Replays: int(r.Replays), Error: r.Error,
			DiscardedAt: r.DiscardedAt.UTC(), ChangedAt: r.ChangedAt.UTC(),
		}
	}
	return letters, nil
}

// Letter returns one dead letter, or ErrNotFound.
func (o *Operator) Letter(ctx context.Context, id int64) (*Letter, error) {
	return o.letter(ctx, o.schema.on(o.pool), id)
}

func (o *Operator) letter(ctx context.Context, db outboxdb.DBTX, id int64) (*Letter, error) {
	r, err := o.q.LetterGet(ctx, db, id)
	if err != nil {
		return nil, notFound("dead letter", err)
	}
	l := &Letter{
		LetterSummary: LetterSummary{
			ID: r.ID, Consumer: r.Consumer, EventID: r.EventID, Type: r.Type, Key: r.Key, CorrelationID: r.CorrelationID,
			State: r.State, Skipped: r.Skipped, Attempts: int(r.Attempts), Replays: int(r.Replays), Error: r.Error,
			DiscardedAt: r.DiscardedAt.UTC(), ChangedAt: r.ChangedAt.UTC(),
		},
		Data: r.Data, Errors: []AttemptError{}, Waiting: []WaitingEvent{}, WaitingCount: int(r.WaitingCount),
	}
	if err := json.Unmarshal(r.Errors, &l.Errors); err != nil {
		return nil, fmt.Errorf("outbox: errors of dead letter %d: %w", id, err)
	}
	waiting, err := o.q.LetterWaiting(ctx, db, outboxdb.LetterWaitingParams{Consumer: r.Consumer, Key: r.Key, Most: 100})
	if err != nil {
		return nil, fmt.Errorf("outbox: what waits behind dead letter %d: %w", id, err)
	}
	for _, w := range waiting {
		l.Waiting = append(l.Waiting, WaitingEvent{w.EventID, w.Type, w.Pos, w.OccurredAt.UTC(), w.Since.UTC()})
	}
	return l, nil
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

func givenTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
