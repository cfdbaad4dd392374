package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"
)

// Limits of an event. The outbox table enforces the same ones, so that a producer in SQL meets them too.
const (
	MaxTypeBytes = 127
	MaxKeyBytes  = 255
	MaxDataBytes = 1 << 20

	maxCorrelationBytes = 128
)

var (
	typeForm        = regexp.MustCompile(`^[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*$`)
	patternForm     = regexp.MustCompile(`^([A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*(\.\*)?|\*)$`)
	correlationForm = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

// Event is a fact that a producer records, with enough state to be acted on alone.
type Event struct {
	// Type names the fact, dotted and in the past tense: user.signed_up. At most 127 bytes.
	Type string
	// Key is what the event is ordered by: a user id, a cart id. Events with the same key reach each consumer in
	// the order in which their transactions committed; events with different keys have no order. 1 to 255 bytes.
	Key string
	// Data is encoded with encoding/json; a json.RawMessage is taken as it is. At most 1 MiB, no NUL characters.
	Data any
	// CorrelationID ties together all that follows from one request. Empty: the context's (WithCorrelationID),
	// else the event's own id.
	CorrelationID string
	// CausationID is the event that caused this one. Zero: inside a handler, the event being handled.
	CausationID uuid.UUID
	// TraceParent is the W3C trace context of the producer. Empty: that of the context's span, where it has one (Append).
	TraceParent string
	// Source names the producer, for people who read the log. At most 127 bytes. Empty: in a handler its consumer, else what WithSource says.
	Source string
	// SchemaVersion is the version of Data's shape; 0 means 1.
	SchemaVersion int
	// NotBefore schedules the event: it is kept until then, to within about a tenth of a second, and takes its place among the
	// events of its key when it is due. Until then CancelScheduled takes it back. Zero, or past: at once.
	NotBefore time.Time
	// Blocks has the later events of the key wait for a scheduled one: it takes its place at once, cannot be taken back, and
	// holds its key at every ordered consumer that subscribes to it until it is due and done.
	Blocks bool
}

// Received is an event as a handler gets it.
type Received[T any] struct {
	ID            uuid.UUID
	Type          string
	Key           string
	Data          T
	CorrelationID string
	CausationID   uuid.UUID // zero when nothing caused it
	TraceParent   string
	// SchemaVersion is that of Data: the one it was written with, or the one that upcasters have raised it to.
	SchemaVersion int
	OccurredAt    time.Time
	// Position is the event's place in the log.
	Position int64
	// Consumer is who it is delivered to, Attempt the how-manieth delivery begun to it, from 1.
	Consumer string
	Attempt  int
	// Backfill is the run that it is delivered in, again or for the first time; 0: none.
	Backfill int64
}

// Context returns a context whose appended events carry this event's correlation id, name it as their cause and, where the handler is
// traced, belong to its trace. In a handler of single events the context it is called with does so already.
func (r Received[T]) Context(ctx context.Context) context.Context {
	d := delivery{eventID: r.ID}
	if outer := deliveryFrom(ctx); outer != nil {
		d.tx, d.muted = outer.tx, outer.muted
	}
	return context.WithValue(withTrace(WithCorrelationID(ctx, r.CorrelationID), r.TraceParent), deliveryKey{}, &d)
}

// InvalidEventError says which field of an event an Append refused. Nothing was written.
type InvalidEventError struct {
	Field  string
	Reason string
}

func (e *InvalidEventError) Error() string {
	return fmt.Sprintf("outbox: event %s %s", e.Field, e.Reason)
}

// ValidCorrelationID reports whether id may be the correlation id of an event: 1 to 128 of [A-Za-z0-9._-].
func ValidCorrelationID(id string) bool {
	return len(id) <= maxCorrelationBytes && correlationForm.MatchString(id)
}

// stored is an event as the tables hold it.
type stored struct {
	ID            uuid.UUID
	Pos           int64
	Lane          int16
	Type          string
	Key           string
	Data          json.RawMessage
	CorrelationID string
	CausationID   *uuid.UUID
	TraceParent   *string
	Source        string
	SchemaVersion int32
	OccurredAt    time.Time
	NotBefore     time.Time // where it is not due
	Blocks        bool
}

// later reports whether the event is to be scheduled, and not to be put into the outbox.
func (s *stored) later() bool { return !s.NotBefore.IsZero() && !s.Blocks }

// encode checks the event and gives it an id. It refuses here whatever the table would refuse, so that a caller
// learns the field and keeps the transaction.
func (e Event) encode(id uuid.UUID) (stored, error) {
	s := stored{
		ID: id, Type: e.Type, Key: e.Key, CorrelationID: e.CorrelationID, Source: e.Source,
		SchemaVersion: int32(min(max(e.SchemaVersion, -1), 1<<20)), OccurredAt: time.Now(),
	}
	if s.SchemaVersion == 0 {
		s.SchemaVersion = 1
	}
	if e.NotBefore.After(s.OccurredAt) {
		s.NotBefore, s.Blocks = e.NotBefore, e.Blocks
	}
	if s.CorrelationID == "" {
		s.CorrelationID = id.String()
	}
	if e.CausationID != uuid.Nil {
		s.CausationID = &e.CausationID
	}
	if e.TraceParent != "" {
		s.TraceParent = &e.TraceParent
	}
	switch {
	case !typeForm.MatchString(s.Type) || len(s.Type) > MaxTypeBytes:
		return s, &InvalidEventError{"type", "must be 1 to 127 bytes of dotted words, like user.signed_up"}
	case s.Key == "" || len(s.Key) > MaxKeyBytes:
		return s, &InvalidEventError{"key", "must be 1 to 255 bytes"}
	case !storable(s.Key):
		return s, &InvalidEventError{"key", "must be UTF-8 without NUL"}
	case !ValidCorrelationID(s.CorrelationID):
		return s, &InvalidEventError{"correlation_id", "must be 1 to 128 of A-Z a-z 0-9 . _ -"}
	case len(s.Source) > 127 || !storable(s.Source):
		return s, &InvalidEventError{"source", "must be at most 127 bytes of UTF-8 without NUL"}
	case len(e.TraceParent) > 255 || !storable(e.TraceParent):
		return s, &InvalidEventError{"traceparent", "must be at most 255 bytes of UTF-8 without NUL"}
	case e.NotBefore.UTC().Year() > 9999:
		return s, &InvalidEventError{"not_before", "must be before the year 10000"}
	case s.SchemaVersion < 1 || s.SchemaVersion > 32767:
		return s, &InvalidEventError{"schema_version", "must be 1 to 32767"}
	}
	data, err := json.Marshal(e.Data)
	if err != nil {
		return s, &InvalidEventError{"data", "cannot be encoded as JSON: " + err.Error()}
	}
	if reason := refusedData(data); reason != "" {
		return s, &InvalidEventError{"data", reason}
	}
	s.Data = data
	return s, nil
}
