package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// LetterEdit is how an operator has repaired an event for the consumer of a letter.
type LetterEdit struct {
	Data   json.RawMessage `json:"data"`
	Diff   json.RawMessage `json:"diff"`
	Actor  string          `json:"actor"`
	Reason string          `json:"reason"`
	At     time.Time       `json:"at"`
	// RedactedAt is since when the data is not all there any more (Redact), and does not stand in for the event's own.
	RedactedAt *time.Time `json:"redacted_at,omitempty"`
}

// Replayed says what a replay has begun.
type Replayed struct {
	JobID int64
	// Checked says that the data which was given is strictly what the consumer's code takes. It is not where there is none, or where
	// this process does not have the code, or the check was overruled.
	Checked bool
	// Diff leads from the event in the log to the data that was given.
	Diff []DataChange
}

// edited is data that is to stand in for an event's own.
type edited struct {
	diff     []DataChange
	encoded  json.RawMessage // the diff
	checked  bool
	problems []DataProblem // what the code does not take
}

// edit compares the data with the event in the log, and with what the consumer's code takes, if this process has it.
func (o *Operator) edit(ctx context.Context, db outboxdb.DBTX, l outboxdb.LetterGetRow, data json.RawMessage) (e edited, err error) {
	original, err := o.q.LetterOriginal(ctx, db, l.ID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return e, conflictf("the log does not hold the event of dead letter %d any more", l.ID)
	case err != nil:
		return e, fmt.Errorf("outbox: read the event of dead letter %d: %w", l.ID, err)
	}
	if e.diff, err = diffData(original.Data, data); err != nil {
		return e, err
	}
	if e.encoded, err = json.Marshal(e.diff); err != nil {
		return e, fmt.Errorf("outbox: encode what was edited: %w", err)
	}
	if o.reg == nil {
		return e, nil
	}
	c := o.reg.Consumer(l.Consumer)
	if c == nil || !c.takes(l.Type) {
		return e, nil
	}
	e.checked = true
	var invalid *InvalidDataError
	err = c.check(&stored{Type: l.Type, Data: data, SchemaVersion: original.SchemaVersion})
	if errors.As(err, &invalid) {
		e.problems = invalid.Fields
		return e, nil
	}
	return e, err
}

// letterEdit is the edit of a letter's event, or nil.
func (o *Operator) letterEdit(ctx context.Context, db outboxdb.DBTX, l outboxdb.LetterGetRow) (*LetterEdit, error) {
	e, err := o.q.EditGet(ctx, db, outboxdb.EditGetParams{Consumer: l.Consumer, EventID: l.EventID})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil //nolint:nilnil // most letters have none
	case err != nil:
		return nil, fmt.Errorf("outbox: read the edit of dead letter %d: %w", l.ID, err)
	}
	return &LetterEdit{e.Data, e.Diff, e.Actor, e.Reason, e.EditedAt.UTC(), utc(e.RedactedAt)}, nil
}
