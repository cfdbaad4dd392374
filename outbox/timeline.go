package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// EventView is an event and what became of it at each consumer that subscribes to it.
type EventView struct {
	ID            uuid.UUID       `json:"id"`
	Type          string          `json:"type"`
	Key           string          `json:"key"`
	Data          json.RawMessage `json:"data,omitempty"`
	CorrelationID string          `json:"correlation_id"`
	CausationID   *uuid.UUID      `json:"causation_id,omitempty"`
	SchemaVersion int             `json:"schema_version"`
	Source        string          `json:"source,omitempty"`
	OccurredAt    time.Time       `json:"occurred_at"`
	// State is scheduled (not due), outbox (not relayed yet) or relayed.
	State      string           `json:"state"`
	NotBefore  *time.Time       `json:"not_before,omitempty"`
	Position   *int64           `json:"position,omitempty"`
	RelayedAt  *time.Time       `json:"relayed_at,omitempty"`
	Deliveries []DeliveryStatus `json:"deliveries"`
}

// DeliveryStatus is where an event is for one consumer.
type DeliveryStatus struct {
	Consumer string `json:"consumer"`
	// State is pending (ahead of the cursor), in_flight (it has a job of its own), waiting (behind another event of its
	// key), dead, skipped (dead, and its key went on without it), processed or dismissed.
	State       string          `json:"state"`
	ProcessedAt *time.Time      `json:"processed_at,omitempty"`
	Behind      *uuid.UUID      `json:"behind,omitempty"`
	Since       *time.Time      `json:"since,omitempty"`
	LetterID    *int64          `json:"letter_id,omitempty"`
	Attempts    []AttemptRecord `json:"attempts"`
}

// AttemptRecord is a line of the delivery log: everything but a clean first try.
type AttemptRecord struct {
	Attempt int       `json:"attempt"`
	Outcome string    `json:"outcome"`
	Error   string    `json:"error,omitempty"`
	At      time.Time `json:"at"`
	Build   string    `json:"build,omitempty"`
}

// Event returns one event with its data and every consumer's state, or ErrNotFound.
func (o *Operator) Event(ctx context.Context, id uuid.UUID) (*EventView, error) {
	db := o.schema.on(o.pool)
	// In the order in which it travels: an event that moves on in between is then found in the next place, and not missed in both.
	later, err := o.q.ScheduledGet(ctx, db, id)
	if err == nil {
		due := later.NotBefore.UTC()
		return &EventView{
			ID: later.ID, Type: later.Type, Key: later.Key, Data: later.Data, CorrelationID: later.CorrelationID,
			CausationID: later.CausationID, SchemaVersion: int(later.SchemaVersion), Source: later.Source,
			OccurredAt: later.ScheduledAt.UTC(), State: "scheduled", NotBefore: &due, Deliveries: []DeliveryStatus{},
		}, nil
	} else if !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("outbox: read event %s: %w", id, err)
	}
	waiting, err := o.q.OutboxGet(ctx, db, id)
	if err == nil {
		return &EventView{
			ID: waiting.ID, Type: waiting.Type, Key: waiting.Key, Data: waiting.Data, CorrelationID: waiting.CorrelationID,
			CausationID: waiting.CausationID, SchemaVersion: int(waiting.SchemaVersion), Source: waiting.Source,
			OccurredAt: waiting.OccurredAt.UTC(), State: "outbox", Deliveries: []DeliveryStatus{},
		}, nil
	} else if !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("outbox: read event %s: %w", id, err)
	}
	e, err := o.q.EventGet(ctx, db, id)
	if err != nil {
		return nil, notFound("event", err)
	}
	relayed := e.RelayedAt.UTC()
	view := &EventView{
		ID: e.ID, Type: e.Type, Key: e.Key, Data: e.Data, CorrelationID: e.CorrelationID, CausationID: e.CausationID,
		SchemaVersion: int(e.SchemaVersion), Source: e.Source, OccurredAt: e.OccurredAt.UTC(), State: "relayed",
		Position: &e.Pos, RelayedAt: &relayed,
	}
	view.Deliveries, err = o.deliveries(ctx, db, e.ID, e.Type, e.Key, e.Lane, e.Pos)
	return view, err
}

// MaxTrace is how many events a Trace returns at most.
const MaxTrace = 1000

// Trace returns all that is known of a correlation id: its events, the relayed ones in the order of the log, then those still in
// the outbox, then those that are not due, each with every consumer's state. Nothing known is no error but an empty list.
func (o *Operator) Trace(ctx context.Context, correlationID string) ([]EventView, error) {
	db := o.schema.on(o.pool)
	later, err := o.q.ScheduledByCorrelation(ctx, db, outboxdb.ScheduledByCorrelationParams{CorrelationID: correlationID, Most: MaxTrace})
	if err != nil {
		return nil, fmt.Errorf("outbox: trace: %w", err)
	}
	unrelayed, err := o.q.OutboxByCorrelation(ctx, db, outboxdb.OutboxByCorrelationParams{CorrelationID: correlationID, Most: MaxTrace})
	if err != nil {
		return nil, fmt.Errorf("outbox: trace: %w", err)
	}
	rows, err := o.q.EventsByCorrelation(ctx, db, outboxdb.EventsByCorrelationParams{CorrelationID: correlationID, Most: MaxTrace})
	if err != nil {
		return nil, fmt.Errorf("outbox: trace: %w", err)
	}
	views, seen := []EventView{}, map[uuid.UUID]bool{}
	for _, e := range rows {
		relayed := e.RelayedAt.UTC()
		v := EventView{
			ID: e.ID, Type: e.Type, Key: e.Key, CorrelationID: e.CorrelationID, CausationID: e.CausationID,
			SchemaVersion: int(e.SchemaVersion), Source: e.Source, OccurredAt: e.OccurredAt.UTC(), State: "relayed",
			Position: &e.Pos, RelayedAt: &relayed,
		}
		if v.Deliveries, err = o.deliveries(ctx, db, e.ID, e.Type, e.Key, e.Lane, e.Pos); err != nil {
			return nil, err
		}
		seen[e.ID] = true
		views = append(views, v)
	}
	for _, e := range unrelayed {
		if seen[e.ID] {
			continue // relayed between the two reads
		}
		seen[e.ID] = true
		views = append(views, EventView{
			ID: e.ID, Type: e.Type, Key: e.Key, CorrelationID: e.CorrelationID, CausationID: e.CausationID,
			SchemaVersion: int(e.SchemaVersion), Source: e.Source, OccurredAt: e.OccurredAt.UTC(), State: "outbox",
			Deliveries: []DeliveryStatus{},
		})
	}
	for _, e := range later {
		if seen[e.ID] {
			continue
		}
		due := e.NotBefore.UTC()
		views = append(views, EventView{
			ID: e.ID, Type: e.Type, Key: e.Key, CorrelationID: e.CorrelationID, CausationID: e.CausationID,
			SchemaVersion: int(e.SchemaVersion), Source: e.Source, OccurredAt: e.ScheduledAt.UTC(), State: "scheduled", NotBefore: &due,
			Deliveries: []DeliveryStatus{},
		})
	}
	return views, nil
}

func (o *Operator) deliveries(ctx context.Context, db outboxdb.DBTX, id uuid.UUID, eventType, key string, lane int16, pos int64) ([]DeliveryStatus, error) {
	states, err := o.q.EventStates(ctx, db, outboxdb.EventStatesParams{Lane: lane, EventID: id, Key: key, Pos: pos, Type: eventType})
	if err != nil {
		return nil, fmt.Errorf("outbox: states of event %s: %w", id, err)
	}
	log, err := o.q.DeliveryLogByEvent(ctx, db, id)
	if err != nil {
		return nil, fmt.Errorf("outbox: delivery log of event %s: %w", id, err)
	}
	deliveries := []DeliveryStatus{}
	for _, s := range states {
		d := DeliveryStatus{Consumer: s.Consumer, LetterID: s.LetterID, Attempts: []AttemptRecord{}}
		letter := ""
		if s.LetterState != nil {
			letter = *s.LetterState
		}
		switch {
		case s.ProcessedAt != nil:
			at := s.ProcessedAt.UTC()
			d.State, d.ProcessedAt = "processed", &at
		case letter == "dead" && s.Skipped:
			d.State = "skipped"
		case letter == "dead" || letter == "dismissed":
			d.State = letter
		case s.WaitingSince != nil:
			d.State, d.Since, d.Behind = "waiting", s.WaitingSince, s.Behind
		case s.Since != nil:
			d.State, d.Since = "in_flight", s.Since
		default:
			d.State = "pending"
		}
		for _, l := range log {
			if l.Consumer == s.Consumer {
				r := AttemptRecord{Attempt: int(l.Attempt), Outcome: l.Outcome, At: l.At.UTC(), Build: l.Build}
				if l.Error != nil {
					r.Error = *l.Error
				}
				d.Attempts = append(d.Attempts, r)
			}
		}
		deliveries = append(deliveries, d)
	}
	return deliveries, nil
}
