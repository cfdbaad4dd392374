package outbox

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Permanent marks an error of a handler as one that no further attempt can mend: the event goes straight to the
// dead letters. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err is marked by Permanent, at any depth.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// ErrNotFound says that there is no such event, letter or consumer.
var ErrNotFound = errors.New("outbox: not found")

// ErrReasonRequired says that an operation must be given a reason, because it is one that somebody will ask about later.
var ErrReasonRequired = errors.New("outbox: a reason is required")

// ConflictError says why an operation does not fit the present state; nothing was changed.
type ConflictError struct {
	Reason string
	// JobID is the unfinished job in the way, where it is one.
	JobID int64
	// Newer are later events of the key that were applied already, where that is what stands in the way of a replay; at most
	// MaxNewer of them. Action.Force overrules it.
	Newer []NewerEvent
	// OutcomeUnknown says that what the consumer does outside may have been done (MayHaveHappened), where that is what stands in the
	// way of a dismissal. Action.Force overrules it; a replay finds out.
	OutcomeUnknown bool
}

// MaxNewer is how many events a ConflictError names at most.
const MaxNewer = 20

// NewerEvent is an event that a consumer processed before an earlier one of the same key.
type NewerEvent struct {
	EventID  uuid.UUID `json:"event_id"`
	Type     string    `json:"type"`
	Position int64     `json:"position"`
}

func (e *ConflictError) Error() string { return "outbox: " + e.Reason }

func conflictf(format string, args ...any) error {
	return &ConflictError{Reason: fmt.Sprintf(format, args...)}
}
