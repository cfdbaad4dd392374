package outbox

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// loadWakes starts from what the database knows: everything that may be ahead of a cursor.
func (r *relay) loadWakes(ctx context.Context) error {
	heads, err := r.q.LaneHeads(ctx, r.db(r.pool))
	if err != nil {
		return fmt.Errorf("read the lanes' heads: %w", err)
	}
	r.wakes = newWakes()
	for _, h := range heads {
		r.wakes.heads[h.Lane] = h.Pos
	}
	return r.loadConsumers(ctx)
}

func (r *relay) loadConsumers(ctx context.Context) error {
	rows, err := r.q.ConsumerList(ctx, r.db(r.pool))
	if err != nil {
		return fmt.Errorf("read the consumers: %w", err)
	}
	now := time.Now()
	r.wakes.setConsumers(now, rows)
	// Cursors only move forward, but for those that a backfill sets back.
	lanes, err := r.q.LanesInRun(ctx, r.db(r.pool))
	if err != nil {
		return fmt.Errorf("read the lanes of backfills: %w", err)
	}
	inRun := map[Lane]int64{}
	for _, l := range lanes {
		inRun[Lane{l.Consumer, l.Lane}] = math.MaxInt64
	}
	behind, err := r.behind(ctx, inRun)
	for _, row := range behind {
		r.wakes.setBack(now, Lane{row.Consumer, row.Lane}, row.Queued)
	}
	return err
}

// sweep finds the lanes that have work and were not told: those with settled holds, and those still behind some time after
// their last wake-up, whose job was lost with a process.
func (r *relay) sweep(ctx context.Context, settled bool) error {
	now := time.Now()
	db := r.db(r.pool)
	if now.Sub(r.wakes.consumersAt) > 5*time.Second {
		if err := r.loadConsumers(ctx); err != nil {
			return err
		}
	}
	if settled && r.wakes.looksForSettled(now) {
		rows, err := r.q.LanesSettled(ctx, db)
		if err != nil {
			return err
		}
		for _, row := range rows {
			r.wakes.settled(now, Lane{row.Consumer, row.Lane}, row.SettledAt)
		}
	}
	return r.confirm(ctx, now, r.wakes.unconfirmed(now))
}

// confirm finds out which of the lanes are behind, and whether it is something wanted that they are to go on with.
func (r *relay) confirm(ctx context.Context, now time.Time, ready map[Lane]int64) error {
	behind, err := r.behind(ctx, ready)
	if err != nil {
		return err
	}
	var end *logEnd
	passing := map[Lane]int64{}
	for _, row := range behind {
		l := Lane{row.Consumer, row.Lane}
		wanted := r.wakes.lane(l).wanted
		if !wanted {
			if end == nil {
				if end, err = r.readEnd(ctx); err != nil {
					return err
				}
			}
			wanted = end.wanted(l.Lane, row.Pos, r.wakes.known[l.Consumer].Patterns)
		}
		if wanted {
			r.wakes.again(now, l, row.Queued)
		} else {
			passing[l] = ready[l]
		}
		delete(ready, l)
	}
	for l, pos := range ready {
		r.wakes.confirm(l, pos)
	}
	r.wakes.passes(now, passing)
	return nil
}

// behind returns those of the lanes whose cursors are below these positions.
func (r *relay) behind(ctx context.Context, ready map[Lane]int64) ([]outboxdb.LanesBehindRow, error) {
	if len(ready) == 0 {
		return nil, nil
	}
	var arg outboxdb.LanesBehindParams
	for l, pos := range ready {
		arg.Consumers, arg.Lanes, arg.Positions = append(arg.Consumers, l.Consumer), append(arg.Lanes, l.Lane), append(arg.Positions, pos)
	}
	rows, err := r.q.LanesBehind(ctx, r.db(r.pool), arg)
	if err != nil {
		return nil, fmt.Errorf("look for lanes that are behind: %w", err)
	}
	return rows, nil
}

// logEnd is what lies in the lanes at the end of the log.
type logEnd struct {
	above int64
	types [Lanes][]outboxdb.LaneTypesRow
}

func (r *relay) readEnd(ctx context.Context) (*logEnd, error) {
	end := &logEnd{above: r.head - wakeLook}
	arg := outboxdb.LaneTypesParams{Above: end.above, Head: r.head, Most: wakeLook}
	for lane := range int16(Lanes) {
		arg.Lanes = append(arg.Lanes, lane)
	}
	rows, err := r.q.LaneTypes(ctx, r.db(r.pool), arg)
	if err != nil {
		return nil, fmt.Errorf("read the end of the log: %w", err)
	}
	for _, row := range rows {
		end.types[row.Lane] = append(end.types[row.Lane], row)
	}
	return end, nil
}

// wanted reports whether a lane has something after pos that one of the patterns takes. Before the end of the log nobody knows,
// and the answer is yes.
func (e *logEnd) wanted(lane int16, pos int64, patterns []string) bool {
	return pos < e.above || slices.ContainsFunc(e.types[lane], func(row outboxdb.LaneTypesRow) bool {
		return row.Pos > pos && slices.ContainsFunc(patterns, func(p string) bool { return matches(p, row.Type) })
	})
}

// wake wakes the lanes that are due.
func (r *relay) wake(ctx context.Context, quiet bool) error {
	woken := r.wakes.due(time.Now())
	if len(woken) > 0 {
		failpoint.At(failpoint.RelayWakeBefore)
	}
	if quiet {
		woken = r.drainHere(woken)
	}
	if len(woken) == 0 {
		return nil
	}
	err := r.inLaterTx(ctx, func(tx pgx.Tx) error {
		// Under load lanes are woken faster than they are drained. A second job in the queue would find nothing to do.
		asleep, err := r.withoutJob(ctx, tx, woken)
		if err != nil || len(asleep) == 0 {
			return err
		}
		if err := r.jobs.WakeLanes(ctx, tx, asleep); err != nil {
			return err
		}
		failpoint.At(failpoint.RelayWakeInserted)
		return nil
	})
	if err != nil {
		r.wakes.forget(woken)
		return fmt.Errorf("wake lanes: %w", err)
	}
	failpoint.At(failpoint.RelayWakeAfter)
	return nil
}

// withoutJob returns the lanes that have no wake-up in their queue.
func (r *relay) withoutJob(ctx context.Context, tx pgx.Tx, lanes []Lane) ([]Lane, error) {
	var queues []string
	for _, l := range lanes {
		if q := DrainQueue(l.Consumer); !slices.Contains(queues, q) {
			queues = append(queues, q)
		}
	}
	rows, err := r.q.LanesQueued(ctx, r.db(tx), queues)
	if err != nil {
		return nil, err
	}
	queued := map[Lane]bool{}
	for _, row := range rows {
		queued[Lane{row.Consumer, row.Lane}] = true
	}
	return slices.DeleteFunc(slices.Clone(lanes), func(l Lane) bool { return queued[l] }), nil
}

// drainHere has lanes drained by this process, which is quicker where there is little to do, and returns those that are to
// get a job: the ones it has no room for (where it is for settled holds alone, not at once), and the ones that were still behind after their last wake-up. Should a process
// die in a drain, it is by its job that this is known.
func (r *relay) drainHere(woken []Lane) (rest []Lane) {
	for _, l := range woken {
		switch {
		case r.cfg.DrainHere == nil || !r.wakes.fresh(l):
			rest = append(rest, l)
		case r.cfg.DrainHere(l):
			r.wakes.lane(l).delayed = time.Time{}
		case !r.wakes.delay(l):
			rest = append(rest, l)
		}
	}
	return rest
}
