package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// Limits of a rehearsal.
const (
	// MaxRehearsedRows is how many rows a rehearsal shows at most, MaxRehearsedBytes how large one may be.
	MaxRehearsedRows  = 100
	MaxRehearsedBytes = 64 << 10
	// MaxRehearsedTable is up to what size a table is searched for the rows that were changed.
	MaxRehearsedTable = 256 << 20
)

// rehearsalLocks is how long a rehearsal waits for a lock, rehearsalReads how long it looks for what was changed: meanwhile it keeps
// the locks that its handler took.
const (
	rehearsalLocks = time.Second
	rehearsalReads = 5 * time.Second
)

// Outcomes of a rehearsal.
const (
	// Succeeds: the handler did its work, which could have been committed.
	Succeeds = "succeeds"
	// Fails: it returned an error, or its work could not have been committed.
	Fails = "fails"
	// Locked: another transaction kept a row, or a table, that it needs. Try again.
	Locked = "locked"
	// Undecided: it came to no end, for a reason that says nothing about the event. Try again.
	Undecided = "undecided"
)

// Rehearsal is what the replay of a dead letter would do.
type Rehearsal struct {
	LetterID int64     `json:"letter_id"`
	Consumer string    `json:"consumer"`
	EventID  uuid.UUID `json:"event_id"`
	// State is the letter's.
	State string `json:"state"`
	// Outcome is Succeeds, Fails, Locked or Undecided; Error says why it is not the first.
	Outcome string `json:"outcome"`
	Error   string `json:"error,omitempty"`
	// ProcessedAt is when the consumer has processed the event, where it has: a replay would then do nothing at all.
	ProcessedAt *time.Time `json:"processed_at,omitempty"`
	// Tables are all that would be written, Changes the first MaxRehearsedRows of their rows, and Events what would be appended.
	Tables  []TableChanges   `json:"tables"`
	Changes []RowChange      `json:"changes"`
	Events  []RehearsedEvent `json:"events"`
	// Diff leads from the event in the log to the data that was given, and Problems are what the consumer's code does not take of that: a
	// replay with it would be refused, or had to be forced.
	Diff     []DataChange  `json:"diff,omitempty"`
	Problems []DataProblem `json:"problems,omitempty"`
	// Duration is how long the handler took, in milliseconds.
	Duration float64 `json:"duration_ms"`
}

// TableChanges counts the rows of a table that would be changed.
type TableChanges struct {
	Table    string `json:"table"`
	Inserted int64  `json:"inserted"`
	Updated  int64  `json:"updated"`
	Deleted  int64  `json:"deleted"`
	// Note says why rows of the table are not among the changes, or are not what they seem.
	Note string `json:"note,omitempty"`
}

// RowChange is a row that would be changed.
type RowChange struct {
	Table string `json:"table"`
	// Operation is insert, update or delete.
	Operation string `json:"operation"`
	// Before and After are the row as JSON; both are missing where it is larger than MaxRehearsedBytes (TooLarge).
	Before   json.RawMessage `json:"before,omitempty"`
	After    json.RawMessage `json:"after,omitempty"`
	TooLarge bool            `json:"too_large,omitempty"`
}

// RehearsedEvent is an event that would be appended.
type RehearsedEvent struct {
	Type string          `json:"type"`
	Key  string          `json:"key"`
	Data json.RawMessage `json:"data"`
	// NotBefore is when it would be due, where it would be scheduled.
	NotBefore *time.Time `json:"not_before,omitempty"`
}

// Rehearse tells what the replay of a letter would do: it runs the handler of the letter's consumer on the event, as it is or with other
// data, as a delivery does, and rolls it back, whatever comes of it. It harms nothing and may be done with a letter in any state. The
// audit keeps who did it.
//
// What no transaction takes back, a rehearsal does not either: numbers drawn from sequences, session-level advisory locks, and calls to the
// outside that a handler should not make. While it runs it keeps the locks that the handler took, for the consumer's Timeout and
// some seconds at most, and it waits for those of others for a second. One at a time runs in a process; it takes two connections of the pool.
//
// A consumer that calls the outside is refused with a *ConflictError: its call cannot be taken back. So is one whose code this process
// does not have (WithConsumers), or whose subscriptions go beyond it; the error says so.
func (o *Operator) Rehearse(ctx context.Context, id int64, data json.RawMessage, by Action) (*Rehearsal, error) {
	if data != nil {
		if reason := refusedData(data); reason != "" {
			return nil, &InvalidEventError{"data", reason}
		}
	}
	select {
	case o.rehearsing <- struct{}{}:
		defer func() { <-o.rehearsing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r, err := o.rehearsal(ctx, id, data)
	if err != nil {
		return nil, err
	}
	// Known before it begins: a handler can take the process along.
	detail := map[string]any{"consumer": r.letter.Consumer, "event_id": r.letter.EventID, "correlation_id": r.letter.CorrelationID, "edited": data != nil}
	entry, err := o.audit(ctx, o.schema.on(o.pool), fmt.Sprintf("dead letter %d", id), "rehearse", by, detail)
	if err != nil {
		return nil, err
	}
	if err := r.run(ctx); err != nil {
		return nil, fmt.Errorf("outbox: rehearse dead letter %d: %w", id, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rehearsalReads)
	defer cancel()
	outcome, err := json.Marshal(map[string]any{"outcome": r.result.Outcome})
	if err != nil {
		return nil, err
	}
	if err := o.q.AuditAdd(ctx, o.schema.on(o.pool), outboxdb.AuditAddParams{ID: entry, Detail: outcome}); err != nil {
		return nil, err
	}
	return &r.result, nil
}

// rehearsal is one run of Rehearse.
type rehearsal struct {
	*Operator
	c      *Consumer
	letter outboxdb.LetterGetRow
	item   *item
	result Rehearsal

	low, span int64 // the transaction ids that are its own lie in these bounds: from low on, so many
	tables    []outboxdb.RehearsalWritesRow
}

// rehearsal finds what is to be run, or says why it cannot be.
func (o *Operator) rehearsal(ctx context.Context, id int64, data json.RawMessage) (*rehearsal, error) {
	db := o.schema.on(o.pool)
	l, err := o.q.LetterGet(ctx, db, id)
	if err != nil {
		return nil, notFound("dead letter", err)
	}
	c, err := o.code(ctx, db, l.Consumer, l.Type)
	if err != nil {
		return nil, err
	}
	if c.Kind == KindExternal {
		return nil, conflictf("consumer %s calls the outside, which nothing takes back: it cannot be rehearsed", c.Name)
	}
	e, err := o.q.RehearsalEvent(ctx, db, id)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, conflictf("the log does not hold the event of dead letter %d any more", id)
	case err != nil:
		return nil, fmt.Errorf("outbox: read the event of dead letter %d: %w", id, err)
	}
	edit := data != nil
	if !edit {
		data = e.Data
	}
	r := &rehearsal{
		Operator: o, c: c, letter: l,
		item: &item{run: e.Run, muted: e.Muted, event: &stored{
			ID: e.ID, Pos: e.Pos, Lane: e.Lane, Type: e.Type, Key: e.Key, Data: data, CorrelationID: e.CorrelationID, CausationID: e.CausationID,
			TraceParent: e.Traceparent, Source: e.Source, SchemaVersion: e.SchemaVersion, OccurredAt: e.OccurredAt,
		}},
		result: Rehearsal{
			LetterID: id, Consumer: l.Consumer, EventID: l.EventID, State: l.State,
			Tables: []TableChanges{}, Changes: []RowChange{}, Events: []RehearsedEvent{},
		},
	}
	if edit {
		e, err := o.edit(ctx, db, l, data)
		if err != nil {
			return nil, err
		}
		r.result.Diff, r.result.Problems = e.diff, e.problems
	}
	at, err := o.q.RehearsalProcessed(ctx, db, outboxdb.RehearsalProcessedParams{Dedupe: dedupe(e.Dedupe, e.Run), EventID: l.EventID})
	switch {
	case err == nil:
		r.result.ProcessedAt = utc(&at)
	case !errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("outbox: ask whether event %s is processed: %w", l.EventID, err)
	}
	return r, nil
}

// run runs the handler in a transaction, finds out what it did while that is open, and rolls it back.
func (r *rehearsal) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.c.Timeout+2*rehearsalReads)
	defer cancel()
	outside, err := r.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer outside.Release()
	limit := max(10*time.Second, r.c.Timeout.Truncate(time.Second))
	tx, err := r.pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: fmt.Sprintf(
		`begin isolation level read committed; set local lock_timeout = '%s'; set local statement_timeout = '%s';
		set local idle_in_transaction_session_timeout = '%s'`, milliseconds(rehearsalLocks), milliseconds(limit), milliseconds(limit))})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rehearsalReads)
		defer cancel()
		_ = tx.Rollback(ctx) // where that fails, the connection is gone, and the transaction with it
	}()
	before, err := r.writes(ctx, tx)
	if err != nil {
		return err
	}
	ht := newHandlerTx(tx)
	began := time.Now()
	failed := r.handle(ctx, ht)
	r.result.Duration = float64(time.Since(began).Microseconds()) / 1000
	if failed != nil {
		r.result.Outcome, r.result.Error = outcomeOf(failed), scrub(failed.Error())
		return nil
	}
	r.result.Outcome = Succeeds
	for _, e := range ht.appended {
		r.result.Events = append(r.result.Events, rehearsed(e))
	}
	return r.look(ctx, tx, outside, before)
}

// handle runs the handler, and what a commit would find out.
func (r *rehearsal) handle(ctx context.Context, ht *handlerTx) error {
	ctx, cancel := context.WithTimeout(ctx, r.c.Timeout)
	defer cancel()
	err := guard(func() error { return r.c.tx(withDelivery(ctx, r.c, r.item, ht), ht, r.item, int(r.letter.Attempts)+1) })
	if err == nil {
		err = ht.flush(ctx)
	}
	if err == nil {
		_, err = ht.Tx.Exec(ctx, "set constraints all immediate")
	}
	if err != nil && ctx.Err() != nil {
		return &lateError{r.c.Timeout, err}
	}
	return err
}

// lateError is that of a handler that did not end in time.
type lateError struct {
	limit time.Duration
	cause error
}

func (e *lateError) Error() string { return fmt.Sprintf("not done after %s: %s", e.limit, e.cause) }
func (e *lateError) Unwrap() error { return e.cause }

func outcomeOf(err error) string {
	switch late := (*lateError)(nil); {
	case errors.As(err, &late):
		return Fails
	case sqlState(err) == "55P03":
		return Locked
	case transient(err):
		return Undecided
	}
	return Fails
}

func rehearsed(e stored) RehearsedEvent {
	r := RehearsedEvent{Type: e.Type, Key: e.Key, Data: e.Data}
	if !e.NotBefore.IsZero() {
		r.NotBefore = utc(&e.NotBefore)
	}
	return r
}

// code returns a consumer that this process has the code of, for all that it subscribes to.
func (o *Operator) code(ctx context.Context, db outboxdb.DBTX, name, eventType string) (*Consumer, error) {
	if o.reg == nil {
		return nil, conflictf("this process runs no consumers: ask one that does")
	}
	c := o.reg.Consumer(name)
	if c == nil || !c.takes(eventType) {
		return nil, conflictf("this build has no code with which consumer %s handles %s", name, eventType)
	}
	uncovered, err := o.reg.uncovered(ctx, o.q, db)
	if err != nil {
		return nil, err
	}
	if slices.Contains(uncovered, name) {
		return nil, conflictf("the subscriptions of consumer %s go beyond the code of this build: ask a process of the build that runs it", name)
	}
	return c, nil
}

// ourTables are those that are the engine's business, and River's. What a handler does to them is not shown, but for events that it
// appends in SQL.
var ourTables = strings.Fields(`outbox scheduled events quarantine relay_state consumers consumer_subscriptions retired_consumers cursors holds
	waiting processed_events discarded_jobs delivery_log event_edits audit runs run_lanes retention checked consumer_stats relay_stats operations operation_groups
	operation_letters webhooks river_job river_queue river_leader river_client river_client_queue river_notification river_migration`)

func (r *rehearsal) writes(ctx context.Context, tx pgx.Tx) (map[int64]outboxdb.RehearsalWritesRow, error) {
	rows, err := r.q.RehearsalWrites(ctx, r.schema.on(tx), ourTables)
	if err != nil {
		return nil, fmt.Errorf("ask what is written: %w", err)
	}
	all := make(map[int64]outboxdb.RehearsalWritesRow, len(rows))
	for _, row := range rows {
		all[row.Relid] = row
	}
	return all, nil
}

// look finds out what the transaction has changed: from inside the rows that it wrote, from outside those that it wrote over.
func (r *rehearsal) look(ctx context.Context, tx pgx.Tx, outside *pgxpool.Conn, before map[int64]outboxdb.RehearsalWritesRow) error {
	ctx, cancel := context.WithTimeout(ctx, rehearsalReads)
	defer cancel()
	after, err := r.writes(ctx, tx)
	if err != nil {
		return err
	}
	for id, now := range after {
		was := before[id]
		now.Inserts, now.Updates, now.Deletes = now.Inserts-was.Inserts, now.Updates-was.Updates, now.Deletes-was.Deletes
		if now.Inserts != 0 || now.Updates != 0 || now.Deletes != 0 {
			r.tables = append(r.tables, now)
		}
	}
	slices.SortFunc(r.tables, func(a, b outboxdb.RehearsalWritesRow) int {
		return strings.Compare(a.Schema+"."+a.Name, b.Schema+"."+b.Name)
	})
	if err := r.bounds(ctx, tx, outside); err != nil || r.low == 0 {
		return err
	}
	for _, t := range r.tables {
		if !t.Ours {
			r.changes(ctx, tx, outside, t)
		} else if err := r.appendedInSQL(ctx, tx, t); err != nil {
			return err
		}
	}
	return nil
}
