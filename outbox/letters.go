package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// LetterFilter chooses dead letters; empty fields choose all.
type LetterFilter struct {
	Consumer      string `json:"consumer,omitempty"`
	Type          string `json:"type,omitempty"`
	Key           string `json:"key,omitempty"`
	CorrelationID string `json:"correlation_id,omitempty"`
	// State is dead, replaying, replayed or dismissed.
	State string    `json:"state,omitempty"`
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Error is a part of the last attempt's error, in any case; Fingerprint is that of a group (LetterGroups).
	Error       string `json:"error,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
}

// json is the filter as outbox_letter_matches reads it.
func (f LetterFilter) json() json.RawMessage {
	f.Since, f.Until = writable(f.Since), writable(f.Until)
	encoded, err := json.Marshal(f)
	if err != nil {
		panic(err) // strings, and times that can be written
	}
	return encoded
}

// writable is the nearest time that JSON and PostgreSQL can both write: the years from 1 to 9999. Nothing was discarded before or after.
func writable(t time.Time) time.Time {
	first, last := time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	switch t = t.UTC(); {
	case t.IsZero():
		return t
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t
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
	Skipped  bool   `json:"skipped"`
	Attempts int    `json:"attempts"`
	Replays  int    `json:"replays"`
	Error    string `json:"error"`
	// Fingerprint is what letters of one cause have in common: see LetterGroup.
	Fingerprint string    `json:"fingerprint"`
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
	// Edit is how an operator has repaired the event for this consumer, where one has.
	Edit *LetterEdit `json:"edit,omitempty"`
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
		BeforeID: before, Most: int32(limit), Filter: f.json(),
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: list dead letters: %w", err)
	}
	letters := make([]LetterSummary, len(rows))
	for i, r := range rows {
		letters[i] = LetterSummary{
			ID: r.ID, Consumer: r.Consumer, EventID: r.EventID, Type: r.Type, Key: r.Key, CorrelationID: r.CorrelationID,
			State: r.State, Skipped: r.Skipped, Attempts: int(r.Attempts), Replays: int(r.Replays), Error: r.Error, Fingerprint: r.Fingerprint,
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
			State: r.State, Skipped: r.Skipped, Attempts: int(r.Attempts), Replays: int(r.Replays), Error: r.Error, Fingerprint: r.Fingerprint,
			DiscardedAt: r.DiscardedAt.UTC(), ChangedAt: r.ChangedAt.UTC(),
		},
		Data: r.Data, Errors: []AttemptError{}, Waiting: []WaitingEvent{}, WaitingCount: int(r.WaitingCount),
	}
	if err := json.Unmarshal(r.Errors, &l.Errors); err != nil {
		return nil, fmt.Errorf("outbox: errors of dead letter %d: %w", id, err)
	}
	if l.Edit, err = o.letterEdit(ctx, db, r); err != nil {
		return nil, err
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

// LetterGroup is all letters of one consumer that have one cause, as far as their errors tell: these are the same but for ids, addresses,
// numbers and what is quoted.
type LetterGroup struct {
	Consumer    string `json:"consumer"`
	Fingerprint string `json:"fingerprint"`
	// Error is the newest one's first line without what differs, and so without anything of a person.
	Error   string   `json:"error"`
	Letters int64    `json:"letters"`
	Types   []string `json:"types"`
	// Oldest and Newest are when the first and the last of them were discarded; NewestID is that letter.
	Oldest   time.Time `json:"oldest"`
	Newest   time.Time `json:"newest"`
	NewestID int64     `json:"newest_id"`
}

// LetterGroups returns the groups of the letters that f chooses, the largest first, at most limit of them, beginning after a group
// (nil: with the largest).
func (o *Operator) LetterGroups(ctx context.Context, f LetterFilter, after *LetterGroup, limit int) ([]LetterGroup, error) {
	arg := outboxdb.LetterGroupsParams{
		Filter: f.json(), BeforeLetters: math.MaxInt64, BeforeID: math.MaxInt64, Most: int32(limit),
	}
	if after != nil {
		arg.BeforeLetters, arg.BeforeID = after.Letters, after.NewestID
	}
	rows, err := o.q.LetterGroups(ctx, o.schema.on(o.pool), arg)
	if err != nil {
		return nil, fmt.Errorf("outbox: group dead letters: %w", err)
	}
	groups := make([]LetterGroup, len(rows))
	for i, r := range rows {
		groups[i] = LetterGroup{
			Consumer: r.Consumer, Fingerprint: r.Fingerprint, Error: r.Error, Letters: r.Letters, Types: r.Types,
			Oldest: r.Oldest.UTC(), Newest: r.Newest.UTC(), NewestID: r.NewestID,
		}
	}
	return groups, nil
}
