package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// dedupe is the name under which a consumer's work is deduplicated in a run (0: outside of any).
func dedupe(name string, run int64) string {
	if run == 0 {
		return name
	}
	return name + "@" + strconv.FormatInt(run, 10)
}

// Backfill says over which part of the log a consumer runs again.
type Backfill struct {
	// From is where it begins, Until where it ends; a zero Until is where the consumer is now.
	From  Start
	Until time.Time
	// Appends writes what handlers append during the run. By default it is not written: the events that followed from the
	// range are in the log already, and other consumers would get them twice.
	Appends bool
}

// BackfillStatus is how far a run is.
type BackfillStatus struct {
	ID       int64  `json:"id"`
	Consumer string `json:"consumer"`
	// From and To are positions: the run is over those above From, up to To.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// State is running, done or stopped.
	State string `json:"state"`
	// Events are all of the run, Ahead those that it has not come to, Held and Waiting those that have failed in it or wait
	// behind such; the others are done.
	Events  int64 `json:"events"`
	Ahead   int64 `json:"ahead"`
	Held    int64 `json:"held"`
	Waiting int64 `json:"waiting"`

	Appends   bool       `json:"appends"`
	Actor     string     `json:"actor"`
	Reason    string     `json:"reason"`
	StartedAt time.Time  `json:"started_at"`
	StoppedAt *time.Time `json:"stopped_at,omitempty"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
}

// Backfill has a consumer run again over a part of the log that it has come past, as after a repair of its code. It takes a
// reason. The run is deduplicated by itself, so that each event happens once more, once; it goes lane by lane through the
// consumer's own cursors, which are set back, so that a key's history comes before what is live of it; live events wait until
// their lane is through. No other consumer notices, unless Backfill.Appends is set.
//
// The handlers must bear it: they see events again whose effects are there already (Received.Backfill tells). An event that
// fails is retried, held and buried like any other. Dead and dismissed letters of the range are run again, too.
//
// A consumer that calls the outside does so again, with the same event ids; that has to be forced. A consumer with keys held, or with
// a run under way, is refused with a *ConflictError, and so is a range that holds nothing.
func (o *Operator) Backfill(ctx context.Context, consumer string, b Backfill, by Action, also ...Also) (*BackfillStatus, error) {
	if strings.TrimSpace(by.Reason) == "" {
		return nil, ErrReasonRequired
	}
	var run int64
	err := o.inTx(ctx, func(tx pgx.Tx, db outboxdb.DBTX) error {
		if err := lockConsumer(ctx, tx, o.q, db, consumer); err != nil {
			return err
		}
		kind, err := o.q.ConsumerKind(ctx, db, consumer)
		if err != nil {
			return notFound("consumer", err)
		}
		if Kind(kind) == KindExternal && !by.Force {
			return conflictf("consumer %s calls the outside: a backfill calls it again, and must be forced", consumer)
		}
		bounds, err := o.q.LogBounds(ctx, db)
		if err != nil {
			return err
		}
		log := outboxdb.ConsumerRegisterHeadRow(bounds)
		from, err := position(ctx, o.q, db, b.From, log)
		if err != nil {
			return err
		}
		to := log.Head
		if !b.Until.IsZero() {
			if to, err = position(ctx, o.q, db, Since(b.Until.Add(relayedWithin)), log); err != nil {
				return err
			}
		}
		if err := o.mayRun(ctx, db, consumer); err != nil {
			return err
		}
		if from >= to {
			return conflictf("there is nothing to run: the log holds nothing between positions %d and %d", from, to)
		}
		if run, err = o.q.RunInsert(ctx, db, outboxdb.RunInsertParams{
			Consumer: consumer, FromPos: from, ToPos: to, Appends: b.Appends, Actor: by.Actor, Reason: by.Reason,
		}); err != nil {
			return err
		}
		lanes, err := o.q.RunLanesInsert(ctx, db, outboxdb.RunLanesInsertParams{Run: run, ToPos: to, Consumer: consumer, FromPos: from})
		if err != nil {
			return err
		}
		events, err := o.q.RunCount(ctx, db, run)
		if err != nil {
			return err
		}
		if events == 0 {
			return conflictf("there is nothing to run: consumer %s has come past no event of its own between positions %d and %d", consumer, from, to)
		}
		if err := o.q.RunBegin(ctx, db, outboxdb.RunBeginParams{FromPos: from, Run: &run, Consumer: consumer}); err != nil {
			return err
		}
		if _, err := o.q.RunLetters(ctx, db, outboxdb.RunLettersParams{Run: &run, Consumer: consumer, FromPos: from}); err != nil {
			return err
		}
		wake := make([]Lane, len(lanes))
		for i, l := range lanes {
			wake[i] = Lane{consumer, l}
		}
		if err := o.jobs.WakeLanes(ctx, tx, wake); err != nil {
			return err
		}
		detail := map[string]any{"run": run, "from": from, "to": to, "events": events, "appends": b.Appends}
		if err := o.auditConsumer(ctx, tx, consumer, "backfill", by, detail, also...); err != nil {
			return err
		}
		failpoint.At(failpoint.BackfillBefore)
		return nil
	})
	if err != nil {
		return nil, err
	}
	failpoint.At(failpoint.BackfillAfter)
	return o.BackfillStatus(ctx, run)
}

// mayRun refuses a run of a consumer that has something unsettled.
func (o *Operator) mayRun(ctx context.Context, db outboxdb.DBTX, consumer string) error {
	running, err := o.q.RunUnderWay(ctx, db, consumer)
	if err != nil {
		return err
	} else if running {
		return conflictf("consumer %s has a backfill under way", consumer)
	}
	held, err := o.q.RunHeld(ctx, db, consumer)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return conflictf("consumer %s has %d keys held, %q among them: their events have to be settled first", consumer, held.Keys, held.Key)
}

// BackfillStatus returns how far a run is, or ErrNotFound.
func (o *Operator) BackfillStatus(ctx context.Context, run int64) (*BackfillStatus, error) {
	r, err := o.q.RunGet(ctx, o.schema.on(o.pool), run)
	if err != nil {
		return nil, notFound("backfill", err)
	}
	s := &BackfillStatus{
		ID: r.ID, Consumer: r.Consumer, From: r.FromPos, To: r.ToPos, State: "done", Events: r.Events, Ahead: r.Ahead, Held: r.Held,
		Waiting: r.Waiting, Appends: r.Appends, Actor: r.Actor, Reason: r.Reason, StartedAt: r.StartedAt.UTC(),
		StoppedAt: r.StoppedAt, EndedAt: r.EndedAt,
	}
	switch {
	case r.StoppedAt != nil:
		s.State = "stopped"
	case r.Running:
		s.State = "running"
	}
	return s, nil
}

// Backfills returns a consumer's runs, the newest first, at most 100 of them.
func (o *Operator) Backfills(ctx context.Context, consumer string) ([]BackfillStatus, error) {
	ids, err := o.q.RunIDs(ctx, o.schema.on(o.pool), outboxdb.RunIDsParams{Consumer: consumer, Most: 100})
	if err != nil {
		return nil, fmt.Errorf("outbox: list backfills: %w", err)
	}
	all := []BackfillStatus{}
	for _, id := range ids {
		s, err := o.BackfillStatus(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		all = append(all, *s)
	}
	return all, nil
}

// StopBackfill ends a run where it is: what it has done stays done, and its lanes go back to their live events. A run that is
// not under way is a *ConflictError.
func (o *Operator) StopBackfill(ctx context.Context, run int64, by Action) (*BackfillStatus, error) {
	err := o.inTx(ctx, func(tx pgx.Tx, db outboxdb.DBTX) error {
		r, err := o.q.RunGet(ctx, db, run)
		if err != nil {
			return notFound("backfill", err)
		}
		if err := lockConsumer(ctx, tx, o.q, db, r.Consumer); err != nil {
			return err
		}
		if r, err = o.q.RunGet(ctx, db, run); err != nil {
			return notFound("backfill", err)
		}
		if !r.Running {
			return conflictf("backfill %d is not under way", run)
		}
		if err := o.q.RunStopLanes(ctx, db, run); err != nil {
			return err
		}
		if err := o.q.RunStopLetters(ctx, db, &run); err != nil {
			return err
		}
		if err := o.q.RunStopCursors(ctx, db, run); err != nil {
			return err
		}
		if err := o.q.RunStop(ctx, db, run); err != nil {
			return err
		}
		return o.auditConsumer(ctx, tx, r.Consumer, "stop backfill", by, map[string]any{"run": run, "ahead": r.Ahead})
	})
	if err != nil {
		return nil, err
	}
	return o.BackfillStatus(ctx, run)
}
