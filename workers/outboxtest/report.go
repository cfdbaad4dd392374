package outboxtest

import (
	"fmt"

	"github.com/google/uuid"
)

// Report says what happened in a Settle.
type Report struct {
	// Relayed is how many events went from the outbox to the log, those among them that handlers appended.
	Relayed int64
	// FailedAttempts is how many attempts at events failed, also where a later one succeeded.
	FailedAttempts int64
	// Dead are the dead letters of the registry's consumers, oldest first: also those of an earlier Settle, until somebody
	// replays or dismisses them.
	Dead []DeadLetter
}

// DeadLetter is an event whose attempts were used up.
type DeadLetter struct {
	// ID is what outbox.Operator takes to look at, replay or dismiss it.
	ID       int64
	Consumer string
	EventID  uuid.UUID
	Type     string
	Key      string
	Attempts int
	// Error is the last attempt's.
	Error string
	// Waiting is how many later events of its key wait behind it, at this consumer.
	Waiting int
}

// String says it in a line, as a failed assertion prints it.
func (d DeadLetter) String() string {
	return fmt.Sprintf("%s: %s of %q is dead after %d attempts: %s", d.Consumer, d.Type, d.Key, d.Attempts, d.Error)
}
