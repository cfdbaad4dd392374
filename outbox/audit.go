package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

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

// Record leaves an entry in the audit for what also does, in one transaction with it, which has the engine's bounds: for what belongs to a
// consumer and is not the engine's, like where a webhook sends to. Target names what it is done to; nil is no detail.
func (o *Operator) Record(ctx context.Context, target, action string, by Action, detail any, also ...Also) error {
	return o.inTx(ctx, func(tx pgx.Tx, _ outboxdb.DBTX) error {
		for _, do := range also {
			if err := do(ctx, tx); err != nil {
				return err
			}
		}
		return o.RecordIn(ctx, tx, target, action, by, detail)
	})
}

// RecordIn is Record in a transaction that is under way, as of an Also.
func (o *Operator) RecordIn(ctx context.Context, tx pgx.Tx, target, action string, by Action, detail any) error {
	if detail == nil {
		detail = struct{}{}
	}
	encoded, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("encode audit detail: %w", err)
	}
	return o.q.AuditInsert(ctx, o.schema.on(tx), outboxdb.AuditInsertParams{
		Actor: by.Actor, Action: action, Target: target, Reason: by.Reason, Detail: encoded,
	})
}

// auditJob is a job as the audit keeps it. Of one that is not there, there is only the number.
type auditJob struct {
	ID            int64  `json:"id"`
	Kind          string `json:"kind,omitempty"`
	Queue         string `json:"queue,omitempty"`
	State         string `json:"state,omitempty"`
	Consumer      string `json:"consumer,omitempty"`
	EventID       string `json:"event_id,omitempty"`
	CorrelationID string `json:"correlation_id,omitempty"`
}

// RecordJobs leaves an entry in the audit for what somebody is about to do with jobs of River, by River's own tools, and returns its number:
// call it before, and do nothing when it fails. River forgets its jobs, so the entry has their kinds, queues and states, and the
// events of those that are the engine's.
func (o *Operator) RecordJobs(ctx context.Context, action string, jobs []int64, by Action) (entry int64, err error) {
	target := fmt.Sprintf("%d jobs", len(jobs))
	if len(jobs) == 1 {
		target = fmt.Sprintf("job %d", jobs[0])
	}
	err = o.inTx(ctx, func(_ pgx.Tx, db outboxdb.DBTX) error {
		rows, err := o.q.AuditJobs(ctx, db, jobs)
		if err != nil {
			return err
		}
		known := make(map[int64]auditJob, len(rows))
		for _, r := range rows {
			known[r.ID] = auditJob(r)
		}
		all := make([]auditJob, len(jobs))
		for i, id := range jobs {
			all[i] = known[id]
			all[i].ID = id
		}
		entry, err = o.audit(ctx, db, target, action, by, map[string]any{"jobs": all})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("outbox: record jobs: %w", err)
	}
	return entry, nil
}

// RecordQueue is RecordJobs for a queue.
func (o *Operator) RecordQueue(ctx context.Context, action, queue string, by Action) (entry int64, err error) {
	entry, err = o.audit(ctx, o.schema.on(o.pool), "queue "+queue, action, by, map[string]any{})
	if err != nil {
		return 0, fmt.Errorf("outbox: record a queue: %w", err)
	}
	return entry, nil
}

// RecordOutcome adds to an entry of RecordJobs or RecordQueue what came of it.
func (o *Operator) RecordOutcome(ctx context.Context, entry int64, outcome string) error {
	detail, err := json.Marshal(map[string]string{"outcome": outcome})
	if err != nil {
		return fmt.Errorf("encode audit detail: %w", err)
	}
	if err := o.q.AuditAdd(ctx, o.schema.on(o.pool), outboxdb.AuditAddParams{ID: entry, Detail: detail}); err != nil {
		return fmt.Errorf("outbox: record an outcome: %w", err)
	}
	return nil
}
