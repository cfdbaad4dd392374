package outbox

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// DeliveryStatus is where an event is for one consumer.
type DeliveryStatus struct {
	Consumer string `json:"consumer"`
	// Kind is tx or external.
	Kind string `json:"kind"`
	// State is pending (ahead of the cursor), in_flight (it has a job of its own), waiting (behind another event of its
	// key), dead, skipped (dead, and its key went on without it), processed or dismissed.
	State string `json:"state"`
	// Explanation says in words why the state is what it is, and what is to come.
	Explanation string     `json:"explanation"`
	ProcessedAt *time.Time `json:"processed_at,omitempty"`
	// Behind is the event that a waiting one waits for, Since when that, or the delivery of one in flight, began.
	Behind *uuid.UUID `json:"behind,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
	// NextAttemptAt is when the next attempt of an event in flight is due, MaxAttempts how many it gets in all.
	NextAttemptAt *time.Time `json:"next_attempt_at,omitempty"`
	MaxAttempts   int        `json:"max_attempts,omitempty"`
	LetterID      *int64     `json:"letter_id,omitempty"`
	// PausedAt is since when the consumer is paused.
	PausedAt *time.Time      `json:"paused_at,omitempty"`
	Attempts []AttemptRecord `json:"attempts"`
}

// AttemptRecord is a line of the delivery log: everything but a clean first try.
type AttemptRecord struct {
	// Attempt is 0 for what is none: it waited, or was taken out of its lane unrun.
	Attempt int `json:"attempt"`
	// Outcome is failed, applied (not at the first attempt), duplicate (a second delivery, suppressed), rescued (its process died),
	// suspect (processes died with it in the lane, and it was taken out unrun), fenced (an attempt that was overtaken), dead,
	// replayed or dismissed (Error says by whom), or waited (behind another event of its key, Since then).
	Outcome string     `json:"outcome"`
	Error   string     `json:"error,omitempty"`
	Behind  *uuid.UUID `json:"behind,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	At      time.Time  `json:"at"`
	Build   string     `json:"build,omitempty"`
}

func attemptRecord(l outboxdb.DeliveryLogByEventsRow) AttemptRecord {
	r := AttemptRecord{Attempt: int(l.Attempt), Outcome: l.Outcome, Behind: l.Behind, Since: utc(l.Since), At: l.At.UTC(), Build: l.Build}
	if l.Error != nil {
		r.Error = *l.Error
	}
	return r
}

func deliveryStatus(s outboxdb.EventStatesRow, attempts []AttemptRecord) DeliveryStatus {
	d := DeliveryStatus{Consumer: s.Consumer, Kind: s.Kind, LetterID: s.LetterID, PausedAt: utc(s.PausedAt), Attempts: attempts}
	if d.Attempts == nil {
		d.Attempts = []AttemptRecord{}
	}
	letter := ""
	if s.LetterState != nil {
		letter = *s.LetterState
	}
	switch {
	case s.ProcessedAt != nil:
		d.State, d.ProcessedAt = "processed", utc(s.ProcessedAt)
	case letter == "dead" && s.Skipped:
		d.State = "skipped"
	case letter == "dead" || letter == "dismissed":
		d.State = letter
	case s.WaitingSince != nil:
		d.State, d.Since = "waiting", utc(s.WaitingSince)
		if s.Behind != uuid.Nil {
			d.Behind = &s.Behind
		}
	case s.Since != nil:
		d.State, d.Since = "in_flight", utc(s.Since)
		if s.JobState != "" {
			d.NextAttemptAt, d.MaxAttempts = utc(s.NextAt), int(s.Attempts+s.AttemptsLeft)
		}
	default:
		d.State = "pending"
	}
	d.Explanation = d.explain(s)
	return d
}

// explain answers the question why it did not happen, or how it did.
func (d *DeliveryStatus) explain(s outboxdb.EventStatesRow) string {
	paused := ""
	if d.PausedAt != nil {
		paused = "the consumer is paused since " + clock(*d.PausedAt)
	}
	switch d.State {
	case "processed":
		return d.explainProcessed()
	case "pending":
		if paused != "" {
			return paused
		}
		return "the consumer has not come to it yet"
	case "waiting":
		if d.Behind == nil {
			return "is about to follow: what it waited for is settled"
		}
		if s.BehindLetter != 0 {
			return fmt.Sprintf("waits behind event %s of its key, which is dead letter %d", d.Behind, s.BehindLetter)
		}
		return fmt.Sprintf("waits behind event %s of its key, which is in flight", d.Behind)
	case "in_flight":
		return join(d.explainJob(s), paused, d.lastError())
	case "dead":
		return join(fmt.Sprintf("gave up after %s; its key waits until dead letter %d is settled", times(int(s.Attempts)), *d.LetterID), d.lastError())
	case "skipped":
		return join(fmt.Sprintf("gave up, and went on without it: dead letter %d", *d.LetterID), d.lastError())
	default: // dismissed
		return join("was given up", d.last("dismissed"))
	}
}

func (d *DeliveryStatus) explainProcessed() string {
	said := []string{"done"}
	failed, twice := 0, 0
	for _, a := range d.Attempts {
		switch a.Outcome {
		case "failed", "rescued":
			failed++
		case "duplicate":
			twice++
		case "waited":
			said = append(said, "waited "+round(a.At.Sub(*a.Since))+" behind another event of its key")
		case "replayed":
			said = append(said, "replayed "+a.Error)
		}
	}
	if failed > 0 {
		said = append(said, times(failed)+" failed before")
	}
	if twice > 0 {
		said = append(said, "a second delivery was suppressed")
	}
	return strings.Join(said, "; ")
}

// explainJob says what the job of a delivery is to do.
func (d *DeliveryStatus) explainJob(s outboxdb.EventStatesRow) string {
	switch {
	case s.SettledAt != nil:
		return "is settled, and about to be lifted"
	case s.JobState == "":
		return "has lost its job, and gets another within seconds"
	case s.JobState == "running":
		return fmt.Sprintf("attempt %d of %d is under way", max(1, s.Attempts), d.MaxAttempts)
	case s.Attempts == 0:
		return fmt.Sprintf("its first attempt is due at %s", clock(*d.NextAttemptAt))
	}
	return fmt.Sprintf("attempt %d of %d is due at %s", s.Attempts+1, d.MaxAttempts, clock(*d.NextAttemptAt))
}

// lastError is the first line of the last attempt's error.
func (d *DeliveryStatus) lastError() string {
	for i := len(d.Attempts) - 1; i >= 0; i-- {
		switch a := d.Attempts[i]; {
		case a.Error == "", a.Outcome == "replayed", a.Outcome == "dismissed":
		default:
			line, _, _ := strings.Cut(a.Error, "\n")
			return "the last error: " + line
		}
	}
	return ""
}

// last is what the last record of an outcome says.
func (d *DeliveryStatus) last(outcome string) string {
	for i := len(d.Attempts) - 1; i >= 0; i-- {
		if d.Attempts[i].Outcome == outcome {
			return d.Attempts[i].Error
		}
	}
	return ""
}

func join(parts ...string) string {
	var given []string
	for _, p := range parts {
		if p != "" {
			given = append(given, p)
		}
	}
	return strings.Join(given, "; ")
}

func times(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

// round shortens a duration to what people read.
func round(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}
