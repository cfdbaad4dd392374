package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// retiredFor is how long a name that was given up is not registered again: a process of an older build may know it.
	retiredFor = 7 * 24 * time.Hour
	// relayedWithin is how long a batch of the relay may take: within it, positions and times of relaying may disagree.
	relayedWithin = 30 * time.Second
)

// lanesWait bounds the wait for all lanes of a consumer: for the batches that are under way, with their handlers.
const lanesWait = `set local lock_timeout = '30s'; set local statement_timeout = '60s'; set local idle_in_transaction_session_timeout = '60s'`

// Start is a place in the log. The zero value is its present end.
type Start struct {
	beginning bool
	since     time.Time
}

var (
	// Now is the end of the log.
	Now = Start{}
	// Beginning is the oldest event that the log still holds.
	Beginning = Start{beginning: true}
)

// Since is the place of the first event that was relayed at t or later. What was relayed up to half a minute before may come,
// too: the log is in the order of its positions, and times of relaying are only about in that order.
func Since(t time.Time) Start { return Start{since: t} }

// ParseStart reads a place in the log as people write it: a time (RFC 3339), beginning, or nothing, which is Now.
func ParseStart(text string) (s Start, ok bool) {
	switch text {
	case "":
		return Now, true
	case "beginning":
		return Beginning, true
	}
	t, err := time.Parse(time.RFC3339, text)
	return Since(t), err == nil && !t.IsZero()
}

// Register makes the consumers of the engine's registry known to the database. A new consumer starts where its option StartFrom says,
// by default from now; a new subscription of a known one starts from now. A consumer that was known under another name
// (Formerly) goes on from where it was.
//
// It returns the consumers that are Uncovered: their lanes and jobs must be left to a program that covers them, or events would pass them
// by. Those of SetConsumers are not registered.
func (e *Engine) Register(ctx context.Context) (uncovered []string, err error) {
	err = e.inTx(ctx, func(tx pgx.Tx) error {
		db := e.db(tx)
		if err := e.q.ConsumerRegisterLock(ctx, db); err != nil {
			return err
		}
		// Before asking for retired names: one that is taken back by its successor is in use again.
		for _, c := range e.code.Consumers() {
			if err := e.takeOver(ctx, tx, c); err != nil {
				return fmt.Errorf("rename consumer %s to %s: %w", c.Formerly, c.Name, err)
			}
		}
		retired, err := e.code.retired(ctx, e.q, db)
		if err != nil {
			return err
		}
		log, err := e.q.ConsumerRegisterHead(ctx, db)
		if err != nil {
			return err
		}
		for _, c := range e.code.Consumers() {
			if slices.Contains(retired, c.Name) {
				continue
			}
			if err := register(ctx, e.q, db, c, log); err != nil {
				return err
			}
		}
		uncovered, err = e.uncovered(ctx, db)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: register consumers: %w", err)
	}
	return uncovered, nil
}

// retired returns the names of the registry that were given up not long ago.
func (r *Registry) retired(ctx context.Context, q *outboxdb.Queries, db outboxdb.DBTX) ([]string, error) {
	rows, err := q.ConsumerRetired(ctx, db, retiredFor.Seconds())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, row := range rows {
		if r.Consumer(row.Name) != nil {
			names = append(names, row.Name)
		}
	}
	return names, nil
}

// register makes the rows of a consumer, and of those of its subscriptions that are new.
func register(ctx context.Context, q *outboxdb.Queries, db outboxdb.DBTX, c *Consumer, log outboxdb.ConsumerRegisterHeadRow) error {
	known, err := q.ConsumerKnown(ctx, db, c.Name)
	if err != nil {
		return err
	}
	pos := log.Head
	if !known {
		if pos, err = position(ctx, q, db, c.Start, log); err != nil {
			return fmt.Errorf("find the start of consumer %s: %w", c.Name, err)
		}
	}
	if err := q.ConsumerRegister(ctx, db, outboxdb.ConsumerRegisterParams{
		Name: c.Name, Kind: string(c.Kind), Ordered: c.Ordered, OnDead: string(c.OnDead),
	}); err != nil {
		return err
	}
	if err := q.ConsumerRegisterCursors(ctx, db, outboxdb.ConsumerRegisterCursorsParams{Consumer: c.Name, Pos: pos}); err != nil {
		return err
	}
	for _, p := range c.Patterns {
		if err := q.ConsumerSubscribe(ctx, db, outboxdb.ConsumerSubscribeParams{Consumer: c.Name, Pattern: p, FromPos: pos}); err != nil {
			return err
		}
	}
	return nil
}

// position returns the position after which the start lies.
func position(ctx context.Context, q *outboxdb.Queries, db outboxdb.DBTX, s Start, log outboxdb.ConsumerRegisterHeadRow) (int64, error) {
	switch {
	case s.beginning:
		return log.Floor, nil
	case s.since.IsZero():
		return log.Head, nil
	}
	if log.FloorAt != nil && s.since.Before(*log.FloorAt) {
		return 0, conflictf("the log holds nothing from before %s any more: begin there, or at its Beginning", log.FloorAt.UTC().Format(time.RFC3339))
	}
	before := s.since.Add(-relayedWithin)
	low, high := log.Floor, log.Head // the last one relayed before is in between, or there is none
	for low < high {
		mid := low + (high-low+1)/2
		at, err := q.EventAt(ctx, db, mid)
		switch {
		case errors.Is(err, pgx.ErrNoRows): // a position that the log lacks: it cannot be later
			low = mid
		case err != nil:
			return 0, err
		case at.Before(before):
			low = mid
		default:
			high = mid - 1
		}
	}
	return low, nil
}

// Uncovered returns the consumers whose subscriptions in the database go beyond this program's code, or whose name was given up not long
// ago, and those of SetConsumers that the database does not know.
func (e *Engine) Uncovered(ctx context.Context) ([]string, error) {
	return e.uncovered(ctx, e.db(e.pool))
}

func (e *Engine) uncovered(ctx context.Context, db outboxdb.DBTX) ([]string, error) {
	patterns, err := subscriptions(ctx, e.q, db)
	if err != nil {
		return nil, err
	}
	reg := e.reg.Load()
	names, err := reg.beyond(ctx, e.q, db, patterns)
	if err != nil {
		return nil, err
	}
	for _, c := range reg.Consumers() {
		// Whoever is known subscribes to something.
		if e.code.Consumer(c.Name) == nil && len(patterns[c.Name]) == 0 && !slices.Contains(names, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names, nil
}

// subscriptions are the patterns by consumer.
func subscriptions(ctx context.Context, q *outboxdb.Queries, db outboxdb.DBTX) (map[string][]string, error) {
	rows, err := q.ConsumerPatterns(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("outbox: read subscriptions: %w", err)
	}
	patterns := map[string][]string{}
	for _, row := range rows {
		patterns[row.Consumer] = append(patterns[row.Consumer], row.Pattern)
	}
	return patterns, nil
}

// uncovered returns the consumers of the registry whose subscriptions go beyond their code, or whose name was given up.
func (r *Registry) uncovered(ctx context.Context, q *outboxdb.Queries, db outboxdb.DBTX) ([]string, error) {
	patterns, err := subscriptions(ctx, q, db)
	if err != nil {
		return nil, err
	}
	return r.beyond(ctx, q, db, patterns)
}

func (r *Registry) beyond(ctx context.Context, q *outboxdb.Queries, db outboxdb.DBTX, patterns map[string][]string) ([]string, error) {
	names, err := r.retired(ctx, q, db)
	if err != nil {
		return nil, fmt.Errorf("outbox: read retired consumers: %w", err)
	}
	for _, c := range r.Consumers() {
		if !slices.Contains(names, c.Name) && !c.covers(patterns[c.Name]) {
			names = append(names, c.Name)
		}
	}
	return names, nil
}

// takeOver gives a consumer what it had under its former name, if that is known and the new one is not.
func (e *Engine) takeOver(ctx context.Context, tx pgx.Tx, c *Consumer) error {
	db := e.db(tx)
	if c.Formerly == "" {
		return nil
	}
	if known, err := e.q.ConsumerKnown(ctx, db, c.Name); err != nil || known {
		return err
	}
	if known, err := e.q.ConsumerKnown(ctx, db, c.Formerly); err != nil || !known {
		return err
	}
	if err := lockConsumer(ctx, tx, e.q, db, c.Formerly); err != nil {
		return err
	}
	if n, err := e.q.ConsumerRename(ctx, db, outboxdb.ConsumerRenameParams{Name: c.Name, OldName: c.Formerly}); err != nil || n == 0 {
		return err
	}
	holds, err := e.q.ConsumerRenameHolds(ctx, db, outboxdb.ConsumerRenameHoldsParams{Name: c.Name, OldName: c.Formerly})
	if err != nil {
		return err
	}
	names := outboxdb.ConsumerRenameWaitingParams{Name: c.Name, OldName: c.Formerly}
	if err := errors.Join(
		e.q.ConsumerRenameWaiting(ctx, db, names),
		e.q.ConsumerRenameLetters(ctx, db, outboxdb.ConsumerRenameLettersParams(names)),
		e.q.ConsumerRenameEdits(ctx, db, outboxdb.ConsumerRenameEditsParams(names)),
		e.q.ConsumerRenameLog(ctx, db, outboxdb.ConsumerRenameLogParams(names)),
	); err != nil {
		return err
	}
	// Jobs name their consumer, and so does what makes them unique: new ones take the places of the old.
	if err := e.q.ConsumerJobsCancel(ctx, db, []string{DrainQueue(c.Formerly), DeliverQueue(c.Formerly)}); err != nil {
		return err
	}
	for _, h := range holds {
		if !h.Open {
			continue
		}
		ids, err := e.jobs.Deliver(ctx, tx, []Delivery{{
			Consumer: c.Name, EventID: h.EventID, CorrelationID: h.CorrelationID, MaxAttempts: max(1, e.maxAttempts(c)-int(h.Attempts)),
		}})
		if err != nil {
			return err
		}
		if _, err := e.q.HoldSetJob(ctx, db, outboxdb.HoldSetJobParams{
			JobID: &ids[0], Consumer: c.Name, EventID: h.EventID, OldJobID: h.JobID,
		}); err != nil {
			return err
		}
	}
	if err := e.q.ConsumerRetire(ctx, db, outboxdb.ConsumerRetireParams{Name: c.Formerly, Successor: &c.Name}); err != nil {
		return err
	}
	e.log.Info("consumer renamed", "from", c.Formerly, "to", c.Name)
	return e.q.AuditInsert(ctx, db, outboxdb.AuditInsertParams{
		Actor: "code", Action: "rename", Target: "consumer " + c.Name, Reason: "it was " + c.Formerly, Detail: []byte("{}"),
	})
}

// lockConsumer waits for the consumer's running batches and keeps further ones from beginning until tx ends, and locks its jobs.
func lockConsumer(ctx context.Context, tx pgx.Tx, q *outboxdb.Queries, db outboxdb.DBTX, name string) error {
	if _, err := tx.Exec(ctx, lanesWait); err != nil {
		return err
	}
	if err := q.ConsumerLanesLock(ctx, db, name); err != nil {
		return fmt.Errorf("wait for the lanes of %s: %w", name, err)
	}
	_, err := q.ConsumerJobsLock(ctx, db, DeliverQueue(name))
	return err
}
