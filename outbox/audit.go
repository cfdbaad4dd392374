package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// AuditEntry is something that an operator did.
type AuditEntry struct {
	ID     int64     `json:"id"`
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Action string    `json:"action"`
	// Target is what it was done to, like "dead letter 7" or "consumer billing".
	Target string          `json:"target"`
	Reason string          `json:"reason"`
	Detail json.RawMessage `json:"detail"`
}

// AuditFilter chooses entries of the audit; empty fields choose all.
type AuditFilter struct{ Actor, Action, Target string }

// Audit returns what operators did, the newest first, at most limit entries and older than the entry before (0: from the newest).
func (o *Operator) Audit(ctx context.Context, f AuditFilter, before int64, limit int) ([]AuditEntry, error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	rows, err := o.q.AuditList(ctx, o.schema.on(o.pool), outboxdb.AuditListParams{
		BeforeID: before, Actor: given(f.Actor), Action: given(f.Action), Target: given(f.Target), Most: int32(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: read the audit: %w", err)
	}
	entries := make([]AuditEntry, len(rows))
	for i, r := range rows {
		entries[i] = AuditEntry{r.ID, r.At.UTC(), r.Actor, r.Action, r.Target, r.Reason, r.Detail}
	}
	return entries, nil
}
