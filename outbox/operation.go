package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// How fast many letters are replayed, in letters a second.
const (
	DefaultReplayRate = 50
	MaxReplayRate     = 1000
)

// BulkReplay says which dead letters to replay, and how.
type BulkReplay struct {
	// Filter chooses them; its State is always dead.
	Filter LetterFilter
	// Rate is how many letters a second are replayed at most, 1 to MaxReplayRate; 0: DefaultReplayRate.
	Rate int
	// NoCanary replays all at once. By default one letter of each group, which is a consumer and a cause, goes first, and the others
	// of its group follow when that has succeeded.
	NoCanary bool
}

// Operation is something that takes a while: so far, the replay of many letters.
type Operation struct {
	ID   int64  `json:"id"`
	Kind string `json:"kind"`
	// State is canary (of each group one letter is tried), running, stopped (by an operator, or because groups failed again) or done.
	State string `json:"state"`
	// Stopped says why it was.
	Stopped string          `json:"stopped,omitempty"`
	Actor   string          `json:"actor"`
	Reason  string          `json:"reason"`
	Filter  json.RawMessage `json:"filter"`
	Rate    int             `json:"rate"`
	Canary  bool            `json:"canary"`
	Force   bool            `json:"force"`
	// Total are the letters that were dead when it began. Of these, Replayed were sent again: Succeeded and FailedAgain are what is known
	// to have become of them, and InFlight the rest. Skipped were not dead any more, or could not be replayed.
	Total       int64     `json:"total"`
	Replayed    int64     `json:"replayed"`
	Succeeded   int64     `json:"succeeded"`
	FailedAgain int64     `json:"failed_again"`
	InFlight    int64     `json:"in_flight"`
	Skipped     int64     `json:"skipped"`
	CreatedAt   time.Time `json:"created_at"`
	ChangedAt   time.Time `json:"changed_at"`
	// EndedAt is from when on nothing of it changes any more. One that is stopped waits for what is in flight.
	EndedAt *time.Time `json:"ended_at,omitempty"`
}

// OperationDetail is an operation whole: its largest groups, and the first of the letters that did not go well.
type OperationDetail struct {
	Operation
	Groups  []OperationGroup  `json:"groups"`
	Trouble []OperationLetter `json:"trouble"`
}

// OperationGroup is what an operation does with the letters of one consumer and one cause.
type OperationGroup struct {
	Consumer    string `json:"consumer"`
	Fingerprint string `json:"fingerprint"`
	// State is canary, running or stopped; Error the shape of what its letters died of, or of what stopped it.
	State   string `json:"state"`
	Error   string `json:"error"`
	Letters int64  `json:"letters"`
	// CanaryID is the letter that went first.
	CanaryID *int64 `json:"canary_id,omitempty"`
}

// OperationLetter is a letter that failed again or was skipped, and why.
type OperationLetter struct {
	ID    int64  `json:"id"`
	State string `json:"state"`
	Error string `json:"error"`
}

// operationMost is how many groups, and how many letters, an OperationDetail has at most.
const operationMost = 100

// ReplayAll begins to replay all dead letters that a filter chooses, as they are now, which takes a reason. Workers, in whatever process, do
// it in the background, some letters a second, each as Replay does and, of each key, in the order of its events; what
// is not dead any more when its turn comes, or is refused, is skipped. A crash neither skips one nor replays one twice.
//
// A group whose canary fails again is stopped, and so is one of which twenty in a row do; the others go on. Stop it by StopOperation.
// A filter that chooses none is a *ConflictError.
func (o *Operator) ReplayAll(ctx context.Context, b BulkReplay, by Action) (*OperationDetail, error) {
	if strings.TrimSpace(by.Reason) == "" {
		return nil, ErrReasonRequired
	}
	if b.Rate == 0 {
		b.Rate = DefaultReplayRate
	}
	if b.Rate < 1 || b.Rate > MaxReplayRate {
		return nil, conflictf("the rate must be 1 to %d letters a second, and is %d", MaxReplayRate, b.Rate)
	}
	b.Filter.State = "dead"
	state := "canary"
	if b.NoCanary {
		state = "running"
	}
	var id int64
	err := o.inTx(ctx, func(_ pgx.Tx, db outboxdb.DBTX) (err error) {
		if id, err = o.q.OperationInsert(ctx, db, outboxdb.OperationInsertParams{
			State: state, Actor: by.Actor, Reason: by.Reason, Filter: b.Filter.json(), Rate: int32(b.Rate), Canary: !b.NoCanary, Force: by.Force,
		}); err != nil {
			return err
		}
		total, err := o.q.OperationLetters(ctx, db, outboxdb.OperationLettersParams{Operation: id, Filter: b.Filter.json()})
		if err != nil {
			return err
		}
		if total == 0 {
			return conflictf("there is nothing to replay: no dead letter is as the filter says")
		}
		if err := o.q.OperationGroups(ctx, db, outboxdb.OperationGroupsParams{Operation: id, State: state}); err != nil {
			return err
		}
		if err := o.q.OperationTotal(ctx, db, outboxdb.OperationTotalParams{Total: total, ID: id}); err != nil {
			return err
		}
		if _, err = o.audit(ctx, db, operationTarget(id), "replay all", by, map[string]any{
			"filter": b.Filter, "letters": total, "rate": b.Rate, "canary": !b.NoCanary, "force": by.Force,
		}); err != nil {
			return err
		}
		failpoint.At(failpoint.OperationBeginBefore)
		return nil
	})
	if err != nil {
		return nil, err
	}
	failpoint.At(failpoint.OperationBeginAfter)
	operationsBegun.wake(true)
	return o.Operation(ctx, id)
}

func operationTarget(id int64) string { return fmt.Sprintf("operation %d", id) }

// StopOperation ends an operation, which takes a reason: no further letter is sent, and what is in flight goes on. One that has ended, or is
// stopped, is a *ConflictError.
func (o *Operator) StopOperation(ctx context.Context, id int64, by Action) (*OperationDetail, error) {
	if strings.TrimSpace(by.Reason) == "" {
		return nil, ErrReasonRequired
	}
	err := o.inTx(ctx, func(_ pgx.Tx, db outboxdb.DBTX) error {
		state, err := o.q.OperationLock(ctx, db, id)
		switch {
		case err != nil:
			return notFound("operation", err)
		case state != "canary" && state != "running":
			return conflictf("operation %d is %s", id, state)
		}
		stopped := fmt.Sprintf("by %s: %s", by.Actor, by.Reason)
		if err := o.q.OperationStop(ctx, db, outboxdb.OperationStopParams{Stopped: &stopped, ID: id}); err != nil {
			return err
		}
		_, err = o.audit(ctx, db, operationTarget(id), "stop", by, map[string]any{})
		return err
	})
	if err != nil {
		return nil, err
	}
	return o.Operation(ctx, id)
}

// Operations returns operations, the newest first, at most limit of them and older than the operation before (0: from the newest).
func (o *Operator) Operations(ctx context.Context, before int64, limit int) ([]Operation, error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	rows, err := o.q.OperationList(ctx, o.schema.on(o.pool), outboxdb.OperationListParams{BeforeID: before, Most: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("outbox: list operations: %w", err)
	}
	all := make([]Operation, len(rows))
	for i, r := range rows {
		all[i] = operation(outboxdb.OperationGetRow(r))
	}
	return all, nil
}

// Operation returns one operation, or ErrNotFound.
func (o *Operator) Operation(ctx context.Context, id int64) (*OperationDetail, error) {
	db := o.schema.on(o.pool)
	r, err := o.q.OperationGet(ctx, db, id)
	if err != nil {
		return nil, notFound("operation", err)
	}
	d := &OperationDetail{Operation: operation(r), Groups: []OperationGroup{}, Trouble: []OperationLetter{}}
	groups, err := o.q.OperationGroupList(ctx, db, outboxdb.OperationGroupListParams{Operation: id, Most: operationMost})
	if err != nil {
		return nil, fmt.Errorf("outbox: groups of operation %d: %w", id, err)
	}
	for _, g := range groups {
		d.Groups = append(d.Groups, OperationGroup{g.Consumer, g.Fingerprint, g.State, g.Error, g.Letters, g.Canary})
	}
	trouble, err := o.q.OperationTrouble(ctx, db, outboxdb.OperationTroubleParams{Operation: id, Most: operationMost})
	if err != nil {
		return nil, fmt.Errorf("outbox: letters of operation %d: %w", id, err)
	}
	for _, l := range trouble {
		d.Trouble = append(d.Trouble, OperationLetter{l.Letter, l.State, l.Note})
	}
	return d, nil
}

func operation(r outboxdb.OperationGetRow) Operation {
	return Operation{
		ID: r.ID, Kind: r.Kind, State: r.State, Stopped: r.Stopped, Actor: r.Actor, Reason: r.Reason, Filter: r.Filter, Rate: int(r.Rate),
		Canary: r.Canary, Force: r.Force, Total: r.Total, Replayed: r.Replayed, Succeeded: r.Succeeded, FailedAgain: r.FailedAgain,
		InFlight: r.Replayed - r.Succeeded - r.FailedAgain, Skipped: r.Skipped,
		CreatedAt: r.CreatedAt.UTC(), ChangedAt: r.ChangedAt.UTC(), EndedAt: utc(r.EndedAt),
	}
}
