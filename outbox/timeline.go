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

// Timeline is all that is known of a correlation id.
type Timeline struct {
	CorrelationID string `json:"correlation_id"`
	// From is when its first event occurred, Until when the last thing happened that is known of it.
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	// Request is what began it: the producer of its first event.
	Request Request `json:"request"`
	// Events are the relayed ones in the order of the log, then those still in the outbox, then those that are not due, then those
	// that the log refused; at most MaxTrace of them.
	Events []EventView `json:"events"`
	More   bool        `json:"more"`
	// Open is what has not happened yet, or was given up: every delivery that is not processed, and every event that is not in the log.
	Open []OpenDelivery `json:"open"`
}

// Request is the producer of an event, as it named itself, and when.
type Request struct {
	Source string    `json:"source"`
	At     time.Time `json:"at"`
}

// OpenDelivery is something that has not happened, and why.
type OpenDelivery struct {
	EventID uuid.UUID `json:"event_id"`
	Type    string    `json:"type"`
	// Consumer is empty for an event that no consumer can see yet.
	Consumer    string `json:"consumer,omitempty"`
	State       string `json:"state"`
	Explanation string `json:"explanation"`
}

// EventView is an event and what became of it at each consumer that subscribes to it.
type EventView struct {
	ID            uuid.UUID       `json:"id"`
	Type          string          `json:"type"`
	Key           string          `json:"key"`
	Data          json.RawMessage `json:"data,omitempty"`
	CorrelationID string          `json:"correlation_id"`
	CausationID   *uuid.UUID      `json:"causation_id,omitempty"`
	// Depth is how many causes of it are in the same timeline.
	Depth         int       `json:"depth"`
	SchemaVersion int       `json:"schema_version"`
	Source        string    `json:"source,omitempty"`
	OccurredAt    time.Time `json:"occurred_at"`
	// State is scheduled (not due), outbox (not relayed yet), relayed, or quarantined (the log refused it, with Error).
	State      string           `json:"state"`
	Error      string           `json:"error,omitempty"`
	NotBefore  *time.Time       `json:"not_before,omitempty"`
	Position   *int64           `json:"position,omitempty"`
	RelayedAt  *time.Time       `json:"relayed_at,omitempty"`
	Deliveries []DeliveryStatus `json:"deliveries"`
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
	views, err := o.views(ctx, db, rows)
	if err != nil {
		return nil, err
	}
	views[0].Data = rows[0].Data
	return &views[0], nil
}

// MaxTrace is how many events a Trace returns at most.
const MaxTrace = 1000

// Trace returns the timeline of a correlation id, without its events' data, or ErrNotFound where no event has it. It reads three
// statements whatever the number of events, each of which sees what was committed when it began: of an event that moves on at this
// moment, it may show the place before or after.
func (o *Operator) Trace(ctx context.Context, correlationID string) (*Timeline, error) {
	db := o.schema.on(o.pool)
	found, err := o.q.EventPlacesByCorrelation(ctx, db, outboxdb.EventPlacesByCorrelationParams{CorrelationID: correlationID, Most: MaxTrace + 1})
	switch {
	case err != nil:
		return nil, fmt.Errorf("outbox: trace: %w", err)
	case len(found) == 0:
		return nil, notFound("correlation id", pgx.ErrNoRows)
	}
	rows := make([]outboxdb.EventPlacesRow, min(len(found), MaxTrace))
	for i := range rows {
		rows[i] = outboxdb.EventPlacesRow(found[i])
	}
	t := &Timeline{CorrelationID: correlationID, More: len(found) > MaxTrace, Open: []OpenDelivery{}}
	if t.Events, err = o.views(ctx, db, rows); err != nil {
		return nil, err
	}
	t.summarize()
	return t, nil
}

// views are events where they are, without their data.
func (o *Operator) views(ctx context.Context, db outboxdb.DBTX, rows []outboxdb.EventPlacesRow) ([]EventView, error) {
	var arg outboxdb.EventStatesParams
	views := make([]EventView, len(rows))
	index := make(map[uuid.UUID]int, len(rows))
	for i, e := range rows {
		views[i] = EventView{
			ID: e.ID, Type: e.Type, Key: e.Key, CorrelationID: e.CorrelationID, CausationID: e.CausationID,
			SchemaVersion: int(e.SchemaVersion), Source: e.Source, OccurredAt: e.OccurredAt.UTC(), State: e.State,
			Error: e.Error, NotBefore: utc(e.NotBefore), Deliveries: []DeliveryStatus{},
		}
		if e.State != "relayed" {
			continue
		}
		views[i].Position, views[i].RelayedAt = &rows[i].Pos, utc(&rows[i].RelayedAt)
		arg.EventIds, arg.Types, arg.Keys = append(arg.EventIds, e.ID), append(arg.Types, e.Type), append(arg.Keys, e.Key)
		arg.Lanes, arg.Positions = append(arg.Lanes, e.Lane), append(arg.Positions, e.Pos)
		index[e.ID] = i
	}
	if len(index) == 0 {
		return views, nil
	}
	states, err := o.q.EventStates(ctx, db, arg)
	if err != nil {
		return nil, fmt.Errorf("outbox: states of events: %w", err)
	}
	log, err := o.q.DeliveryLogByEvents(ctx, db, arg.EventIds)
	if err != nil {
		return nil, fmt.Errorf("outbox: delivery log of events: %w", err)
	}
	type delivery struct {
		consumer string
		event    uuid.UUID
	}
	attempts := map[delivery][]AttemptRecord{}
	for _, l := range log {
		d := delivery{l.Consumer, l.EventID}
		attempts[d] = append(attempts[d], attemptRecord(l))
	}
	for _, s := range states {
		v := &views[index[s.EventID]]
		v.Deliveries = append(v.Deliveries, deliveryStatus(s, attempts[delivery{s.Consumer, s.EventID}]))
	}
	return views, nil
}

// summarize finds the ends, the causes and what is open.
func (t *Timeline) summarize() {
	depth := map[uuid.UUID]int{}
	for i := range t.Events {
		e := &t.Events[i]
		// An event's cause is in the log before it.
		if e.CausationID != nil {
			if d, known := depth[*e.CausationID]; known {
				e.Depth = d + 1
			}
		}
		depth[e.ID] = e.Depth
		if i == 0 || e.OccurredAt.Before(t.From) {
			t.From, t.Request = e.OccurredAt, Request{e.Source, e.OccurredAt}
		}
		t.reaches(&e.OccurredAt)
		t.reaches(e.RelayedAt)
		if why := e.notRelayed(); why != "" {
			t.Open = append(t.Open, OpenDelivery{EventID: e.ID, Type: e.Type, State: e.State, Explanation: why})
		}
		for _, d := range e.Deliveries {
			t.reaches(d.ProcessedAt)
			for _, a := range d.Attempts {
				t.reaches(&a.At)
			}
			if d.State != "processed" {
				t.Open = append(t.Open, OpenDelivery{e.ID, e.Type, d.Consumer, d.State, d.Explanation})
			}
		}
	}
}

func (t *Timeline) reaches(at *time.Time) {
	if at != nil && at.After(t.Until) {
		t.Until = *at
	}
}

// notRelayed says why no consumer can see the event, or nothing.
func (e *EventView) notRelayed() string {
	switch e.State {
	case "scheduled":
		return "is not due before " + clock(*e.NotBefore)
	case "outbox":
		return "is committed, and no relay has moved it into the log yet"
	case "quarantined":
		return "the log refused it, or an earlier event of its key: " + e.Error
	}
	return ""
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// clock is a time for people, in UTC.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
