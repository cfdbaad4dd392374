package handlers

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// What operators' routes answer where that is not what the library returns. The command line gives the same documents.

// Paused says whether a consumer is.
type Paused struct {
	Name   string `json:"name"`
	Paused bool   `json:"paused"`
}

// Unsubscribed is the pattern of a subscription that a consumer had.
type Unsubscribed struct {
	Name         string `json:"name"`
	Unsubscribed string `json:"unsubscribed"`
}

// MadeWebhook is an endpoint that was made, with its secret, which is told this once.
type MadeWebhook struct {
	webhooks.Endpoint
	Secret string `json:"secret"`
}

// Rotated is an endpoint's new secret, which is told this once. The old one signs along until then.
type Rotated struct {
	Name           string    `json:"name"`
	Secret         string    `json:"secret"`
	OldSecretUntil time.Time `json:"old_secret_until"`
}

// NewRotated is the answer to a rotation that was made just now.
func NewRotated(name, secret string) Rotated {
	return Rotated{name, secret, time.Now().UTC().Add(webhooks.OldSecretFor).Truncate(time.Second)}
}

// Replaying is a dead letter on its way to its consumer again.
type Replaying struct {
	ID    int64  `json:"id"`
	State string `json:"state"`
	JobID int64  `json:"job_id"`
	// ReplayedData is there where it goes with other data than the event's own.
	*ReplayedData
}

// ReplayedData is as in outbox.Replayed.
type ReplayedData struct {
	Checked bool                `json:"checked"`
	Diff    []outbox.DataChange `json:"diff"`
}

// NewReplaying is the answer to a replay of a letter, with other data or not.
func NewReplaying(letter int64, r *outbox.Replayed, edited bool) Replaying {
	answer := Replaying{ID: letter, State: "replaying", JobID: r.JobID}
	if edited {
		answer.ReplayedData = &ReplayedData{r.Checked, r.Diff}
	}
	return answer
}

// LetterPage is a list of letters of which one more than limit was asked for, so that it is known whether there are more.
func LetterPage(read []outbox.LetterSummary, limit int) List[outbox.LetterSummary] {
	return pageByID(read, limit, func(l outbox.LetterSummary) int64 { return l.ID })
}

// LetterGroupPage is as LetterPage; ParseGroupCursor reads its cursor.
func LetterGroupPage(read []outbox.LetterGroup, limit int) List[outbox.LetterGroup] {
	return page(read, limit, func(g outbox.LetterGroup) outbox.LetterGroup { return g }, groupCursor)
}

// OperationPage is as LetterPage.
func OperationPage(read []outbox.Operation, limit int) List[outbox.Operation] {
	return pageByID(read, limit, func(o outbox.Operation) int64 { return o.ID })
}

// AuditPage is as LetterPage.
func AuditPage(read []outbox.AuditEntry, limit int) List[outbox.AuditEntry] {
	return pageByID(read, limit, func(e outbox.AuditEntry) int64 { return e.ID })
}

// TimelinePage is a list of what a search found.
func TimelinePage(found *outbox.Found) List[outbox.Timeline] {
	l := List[outbox.Timeline]{Items: found.Timelines}
	if found.Next > 0 {
		next := strconv.FormatInt(found.Next, 10)
		l.NextCursor = &next
	}
	return l
}

func pageByID[T any](read []T, limit int, id func(T) int64) List[T] {
	return page(read, limit, func(v T) T { return v }, func(v T) string { return strconv.FormatInt(id(v), 10) })
}

func groupCursor(g outbox.LetterGroup) string { return fmt.Sprintf("%d.%d", g.Letters, g.NewestID) }

// ParseGroupCursor reads the cursor of a LetterGroupPage: the group after which the next one begins.
func ParseGroupCursor(cursor string) (after *outbox.LetterGroup, ok bool) {
	after = &outbox.LetterGroup{}
	_, err := fmt.Sscanf(cursor, "%d.%d", &after.Letters, &after.NewestID)
	return after, err == nil && groupCursor(*after) == cursor
}
