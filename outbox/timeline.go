package outbox

import (
	"context"
	"encoding/json"
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
	rows, err := o.q.EventPlaces(ctx, db, id)
	switch {
	case err != nil:
		return nil, fmt.Errorf("outbox: read event %s: %w", id, err)
	case len(rows) == 0:
		return nil, notFound("event", pgx.ErrNoRows)
	}
	view, err := o.view(ctx, db, rows[0])
	if err != nil {
		return nil, err
	}
	view.Data = rows[0].Data
	return view, nil
}

// view is an event where it is, without its data.
func (o *Operator) view(ctx context.Context, db outboxdb.DBTX, e outboxdb.EventPlacesRow) (*EventView, error) {
	v := &EventView{
		ID: e.ID, Type: e.Type, Key: e.Key, CorrelationID: e.CorrelationID, CausationID: e.CausationID,
		SchemaVersion: int(e.SchemaVersion), Source: e.Source, OccurredAt: e.OccurredAt.UTC(), State: e.State,
		Deliveries: []DeliveryStatus{},
	}
	if e.NotBefore != nil {
		due := e.NotBefore.UTC()
		v.NotBefore = &due
	}
	if e.State != "relayed" {
		return v, nil
	}
	relayed := e.RelayedAt.UTC()
	v.Position, v.RelayedAt = &e.Pos, &relayed
	var err error
	v.Deliveries, err = o.deliveries(ctx, db, e.ID, e.Type, e.Key, e.Lane, e.Pos)
	return v, err
}

// MaxTrace is how many events a Trace returns at most.
const MaxTrace = 1000

// Trace returns all that is known of a correlation id: its events, the relayed ones in the order of the log, then those still in
// the outbox, then those that are not due, each with every consumer's state. Nothing known is no error but an empty list.
func (o *Operator) Trace(ctx context.Context, correlationID string) ([]EventView, error) {
	db := o.schema.on(o.pool)
	rows, err := o.q.EventPlacesByCorrelation(ctx, db, outboxdb.EventPlacesByCorrelationParams{CorrelationID: correlationID, Most: MaxTrace})
	if err != nil {
		return nil, fmt.Errorf("outbox: trace: %w", err)
	}
	views := make([]EventView, len(rows))
	for i, row := range rows {
		v, err := o.view(ctx, db, outboxdb.EventPlacesRow(row))
		if err != nil {
			return nil, err
		}
		views[i] = *v
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
