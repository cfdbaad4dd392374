package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// MaxPointers is how many pointers a Redaction may have.
const MaxPointers = 100

// Redaction says what is to be taken out of what is kept of a dead letter.
type Redaction struct {
	// Pointers are JSON pointers (RFC 6901) into the event's data as it was edited, like /email or /lines/0/note; "" is all of it. In the edited
	// data, in what the edit has changed (before and after) and in the letter's copy of the data, what is there or below becomes
	// RedactedText. The names on the way stay: point above a name that is a datum itself.
	Pointers []string
	// Errors replaces what every attempt so far has left as its error: in the letter, the delivery log, the jobs of River, and what
	// operations that replayed the letter keep of it. The letter's fingerprint stays.
	Errors bool
	// Reasons replaces the reasons that operators gave for what they did to the letter until now, earlier redactions among it, and for operations
	// that replayed it. Who did what, and when, stays.
	Reasons bool
}

// Redacted says what a redaction has replaced, each copy counted; what was redacted before is not.
type Redacted struct {
	LetterID int64 `json:"id"`
	// Values are those of the data and of its diff.
	Values  int64 `json:"values"`
	Errors  int64 `json:"errors"`
	Reasons int64 `json:"reasons"`
}

// InvalidRedactionError says which parts of a Redaction cannot be meant, as JSON pointers like /pointers/0. Nothing was changed.
type InvalidRedactionError struct{ Fields []DataProblem }

func (e *InvalidRedactionError) Error() string {
	all := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		all[i] = strings.TrimSpace(strings.TrimPrefix(f.Pointer, "/") + " " + f.Detail)
	}
	return "outbox: redaction: " + strings.Join(all, "; ")
}

// pointers reads what is to be redacted of the data.
func (r Redaction) pointers() ([]pointer, error) {
	switch {
	case len(r.Pointers) == 0 && !r.Errors && !r.Reasons:
		return nil, &InvalidRedactionError{[]DataProblem{{"", "names nothing: give pointers, errors or reasons"}}}
	case len(r.Pointers) > MaxPointers:
		return nil, &InvalidRedactionError{[]DataProblem{{"/pointers", fmt.Sprintf("must be at most %d", MaxPointers)}}}
	}
	var wrong []DataProblem
	all := make([]pointer, len(r.Pointers))
	for i, s := range r.Pointers {
		var ok bool
		if all[i], ok = parsePointer(s); !ok {
			wrong = append(wrong, DataProblem{fmt.Sprintf("/pointers/%d", i), "must be a JSON pointer like /email"})
		}
	}
	if len(wrong) > 0 {
		return nil, &InvalidRedactionError{wrong[:min(len(wrong), maxDataProblems)]}
	}
	return all, nil
}

// Redact takes a person's data out of what is kept of a dead letter: what operators typed, and what errors say. It takes a reason, which is
// kept, as are the actor and the pointers: name nobody there. It is one transaction, and may be done again: what is redacted stays as it is,
// and what has come since is redacted, too.
//
// Errors and reasons may be redacted at any time. The data may when nobody needs it any more: as long as the letter is dead or being replayed, or
// its event is held or waits at the consumer, a pointer to what is in it is a *ConflictError. An edit that was redacted does not stand in for its
// event any more: should a backfill deliver that again, the consumer gets it as the log holds it. A pointer to nothing, in the data
// and its diff, is an *InvalidRedactionError, unless that was redacted before.
//
// The event itself is not touched, nor its key, nor what was logged outside of the database: the log is the record of what producers wrote.
func (o *Operator) Redact(ctx context.Context, id int64, r Redaction, by Action) (*Redacted, error) {
	if strings.TrimSpace(by.Reason) == "" {
		return nil, ErrReasonRequired
	}
	at, err := r.pointers()
	if err != nil {
		return nil, err
	}
	done := &Redacted{LetterID: id}
	err = o.inTx(ctx, func(_ pgx.Tx, db outboxdb.DBTX) error {
		x := &redacting{Operator: o, db: db, target: fmt.Sprintf("dead letter %d", id), done: done}
		if err := x.lock(ctx, id); err != nil {
			return err
		}
		if len(at) > 0 {
			if err := x.data(ctx, at); err != nil {
				return err
			}
		}
		if r.Errors {
			if err := x.errors(ctx); err != nil {
				return err
			}
		}
		if r.Reasons {
			if err := x.reasons(ctx); err != nil {
				return err
			}
		}
		_, err := o.audit(ctx, db, x.target, "redact", by, map[string]any{
			"consumer": x.letter.Consumer, "event_id": x.letter.EventID, "correlation_id": x.letter.CorrelationID,
			"pointers": append([]string{}, r.Pointers...), "errors": r.Errors, "reasons": r.Reasons,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// redacting is a redaction in a transaction that has all that is to be changed.
type redacting struct {
	*Operator
	db     outboxdb.DBTX
	target string // the letter's name in the audit
	done   *Redacted

	letter     outboxdb.LetterGetRow
	state      string
	names      []string // of the consumer
	operations []int64
	targets    []string // the letter's, and those of the operations
	jobs       []int64
	held       bool
}

// lock finds the letter and all that is changed with it. Lock order: the operations, the jobs, the hold, the letter.
func (x *redacting) lock(ctx context.Context, id int64) (err error) {
	if x.letter, err = x.q.LetterGet(ctx, x.db, id); err != nil {
		return notFound("dead letter", err)
	}
	if x.names, err = x.q.RedactionNames(ctx, x.db, x.letter.Consumer); err != nil {
		return err
	}
	if x.operations, err = x.q.RedactionOperations(ctx, x.db, outboxdb.RedactionOperationsParams{Letter: id, Target: x.target}); err != nil {
		return err
	}
	x.targets = []string{x.target}
	for _, operation := range x.operations {
		x.targets = append(x.targets, operationTarget(operation))
	}
	if x.jobs, err = x.q.RedactionJobs(ctx, x.db, outboxdb.RedactionJobsParams{EventID: x.letter.EventID.String(), Names: x.names}); err != nil {
		return err
	}
	settled, err := x.q.RedactionHold(ctx, x.db, outboxdb.RedactionHoldParams{Consumer: x.letter.Consumer, EventID: x.letter.EventID})
	switch {
	case err == nil:
		x.held = settled == nil
	case !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	now, err := x.q.RedactionLetter(ctx, x.db, id)
	switch {
	case err != nil:
		return notFound("dead letter", err)
	case now.Consumer != x.letter.Consumer:
		return conflictf("the consumer of dead letter %d was renamed in this moment", id)
	}
	x.state, x.letter.Data = now.State, now.Data
	return nil
}

// data redacts the letter's copy of the data, and the edit.
func (x *redacting) data(ctx context.Context, at []pointer) error {
	found := make([]bool, len(at))
	copied, inCopy, err := redactData(x.letter.Data, at, found)
	if err != nil {
		return err
	}
	edit, err := x.q.RedactionEdit(ctx, x.db, outboxdb.RedactionEditParams{Consumer: x.letter.Consumer, EventID: x.letter.EventID})
	repaired := err == nil
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	var inEdit, inDiff int
	var kept, encoded json.RawMessage
	if repaired {
		if kept, inEdit, err = redactData(edit.Data, at, found); err != nil {
			return err
		}
		var diff []DataChange
		if err := json.Unmarshal(edit.Diff, &diff); err != nil {
			return fmt.Errorf("outbox: diff of dead letter %d: %w", x.letter.ID, err)
		}
		if diff, inDiff, err = redactDiff(diff, at, found); err != nil {
			return err
		}
		if encoded, err = json.Marshal(diff); err != nil {
			return fmt.Errorf("outbox: encode the diff of dead letter %d: %w", x.letter.ID, err)
		}
	}
	if err := unknownPointers(found); err != nil {
		return err
	}
	if inCopy > 0 || inEdit > 0 && edit.RedactedAt == nil {
		if err := x.needed(ctx); err != nil {
			return err
		}
	}
	x.done.Values = int64(inCopy + inEdit + inDiff)
	if inCopy > 0 {
		if err := x.q.RedactLetterData(ctx, x.db, outboxdb.RedactLetterDataParams{ID: x.letter.ID, Data: copied}); err != nil {
			return err
		}
	}
	if inEdit+inDiff == 0 {
		return nil
	}
	return x.q.RedactEdit(ctx, x.db, outboxdb.RedactEditParams{
		Data: kept, Diff: encoded, Partial: inEdit > 0, Consumer: x.letter.Consumer, EventID: x.letter.EventID,
	})
}

func unknownPointers(found []bool) error {
	var wrong []DataProblem
	for i, is := range found {
		if !is {
			wrong = append(wrong, DataProblem{fmt.Sprintf("/pointers/%d", i), "leads nowhere: nothing is there in the data, nor in what was changed of it"})
		}
	}
	if len(wrong) > 0 {
		return &InvalidRedactionError{wrong[:min(len(wrong), maxDataProblems)]}
	}
	return nil
}

// needed refuses where the data may still be delivered.
func (x *redacting) needed(ctx context.Context) error {
	id := x.letter.ID
	waits, err := x.q.RedactionWaits(ctx, x.db, outboxdb.RedactionWaitsParams{EventID: x.letter.EventID, Consumer: x.letter.Consumer})
	switch {
	case err != nil:
		return err
	case x.state == "dead":
		return conflictf("dead letter %d is dead, and its data is still needed: dismiss it, or replay it, before its data is redacted", id)
	case x.state == "replaying":
		return conflictf("dead letter %d is replaying, and its data is still needed: wait for the end of that, before its data is redacted", id)
	case x.held, waits:
		return conflictf("the event of dead letter %d is on its way once more, and its data is still needed: wait until it is settled, before its data is redacted", id)
	}
	return nil
}

// errors redacts what the attempts left.
func (x *redacting) errors(ctx context.Context) error {
	event := x.letter.EventID
	shapes, err := x.q.RedactionShapes(ctx, x.db, outboxdb.RedactionShapesParams{EventID: event, Names: x.names, ID: x.letter.ID})
	if err != nil {
		return err
	}
	if err := x.count(&x.done.Errors,
		func() (int64, error) {
			return x.q.RedactGroups(ctx, x.db, outboxdb.RedactGroupsParams{Operations: x.operations, Shapes: shapes})
		},
		func() (int64, error) {
			return x.q.RedactStops(ctx, x.db, outboxdb.RedactStopsParams{Targets: x.targets, Shapes: shapes})
		},
		func() (int64, error) { return x.filters(ctx) },
		func() (int64, error) { return x.q.RedactJobErrors(ctx, x.db, x.jobs) },
		func() (int64, error) {
			return x.q.RedactLog(ctx, x.db, outboxdb.RedactLogParams{EventID: event, Names: x.names})
		},
		func() (int64, error) { return x.q.RedactLetterErrors(ctx, x.db, x.letter.ID) },
	); err != nil {
		return fmt.Errorf("outbox: redact the errors of dead letter %d: %w", x.letter.ID, err)
	}
	return nil
}

// reasons redacts what operators gave as their reasons. The audit comes last: it tells where in a note the name ends.
func (x *redacting) reasons(ctx context.Context) error {
	event := x.letter.EventID
	if err := x.count(&x.done.Reasons,
		func() (int64, error) {
			return x.q.RedactEditReason(ctx, x.db, outboxdb.RedactEditReasonParams{Consumer: x.letter.Consumer, EventID: event})
		},
		func() (int64, error) {
			return x.q.RedactNotes(ctx, x.db, outboxdb.RedactNotesParams{Target: x.target, EventID: event, Names: x.names})
		},
		func() (int64, error) { return x.q.RedactOperationReasons(ctx, x.db, x.operations) },
		func() (int64, error) { return x.filters(ctx) },
		func() (int64, error) { return x.q.RedactReasons(ctx, x.db, x.targets) },
	); err != nil {
		return fmt.Errorf("outbox: redact the reasons of dead letter %d: %w", x.letter.ID, err)
	}
	return nil
}

// filters redacts by which errors the letters of the operations were chosen.
func (x *redacting) filters(ctx context.Context) (n int64, err error) {
	err = x.count(&n,
		func() (int64, error) { return x.q.RedactFilters(ctx, x.db, x.operations) },
		func() (int64, error) { return x.q.RedactFiltersKept(ctx, x.db, x.targets) })
	return n, err
}

func (x *redacting) count(total *int64, steps ...func() (int64, error)) error {
	for _, step := range steps {
		n, err := step()
		if err != nil {
			return err
		}
		*total += n
	}
	return nil
}
