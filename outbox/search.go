package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// searchReach is how many positions of the log one Search looks through for keys, for which there is no index: of a million events,
// those of a key's lane are some 16,000.
const searchReach = 1_000_000

// Search is what to look for: any of it will do.
type Search struct {
	// CorrelationID is looked for as it is.
	CorrelationID string
	// EventIDs are looked for wherever in the log they are.
	EventIDs []uuid.UUID
	// Keys are looked for in the newest million positions. Where none of EventIDs is in the log, Found.Next leads further back.
	Keys []string
}

// Found is a page of timelines, the newest first.
type Found struct {
	Timelines []Timeline
	// Next is where the next page begins; 0: this is the last. A page may hold nothing, and still have a next one.
	Next int64
}

// Search returns the timelines of the correlation ids that have any of what is looked for, at most limit of them, from before on
// (0: the newest).
func (o *Operator) Search(ctx context.Context, s Search, before int64, limit int) (*Found, error) {
	db := o.schema.on(o.pool)
	reach, err := o.q.LogReach(ctx, db, append([]uuid.UUID{}, s.EventIDs...))
	if err != nil {
		return nil, fmt.Errorf("outbox: search: %w", err)
	}
	var ids []string
	if before <= 0 {
		if ids, err = o.searchAhead(ctx, db, s, limit); err != nil {
			return nil, err
		}
	}
	arg := outboxdb.CorrelationsFoundParams{
		EventIds: append([]uuid.UUID{}, s.EventIDs...), Keys: append([]string{}, s.Keys...), But: s.CorrelationID,
		Before: before, After: reach.Head - searchReach, Most: int32(limit),
	}
	if before <= 0 {
		arg.Before = reach.Head + searchReach // what is relayed at this moment may be found
	}
	deep := !reach.Known && len(s.Keys) > 0
	if deep {
		arg.After = max(reach.Floor, min(arg.Before, reach.Head+1)-1-searchReach)
	}
	rows, err := o.q.CorrelationsFound(ctx, db, arg)
	if err != nil {
		return nil, fmt.Errorf("outbox: search: %w", err)
	}
	found := &Found{Timelines: []Timeline{}}
	switch {
	case len(rows) == limit:
		found.Next = rows[limit-1].Pos
	case deep && arg.After > reach.Floor:
		found.Next = arg.After + 1
	}
	for _, r := range rows {
		ids = append(ids, r.CorrelationID)
	}
	return found, o.timelines(ctx, found, ids)
}

// searchAhead returns the correlation id itself, and those of what is not in the log yet.
func (o *Operator) searchAhead(ctx context.Context, db outboxdb.DBTX, s Search, limit int) (ids []string, err error) {
	if s.CorrelationID != "" {
		ids = append(ids, s.CorrelationID)
	}
	if len(s.EventIDs)+len(s.Keys) == 0 {
		return ids, nil
	}
	ahead, err := o.q.CorrelationsAhead(ctx, db, outboxdb.CorrelationsAheadParams{
		EventIds: append([]uuid.UUID{}, s.EventIDs...), Keys: append([]string{}, s.Keys...), Most: int32(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: search ahead of the log: %w", err)
	}
	return append(ids, ahead...), nil
}

// timelines reads those of the correlation ids that have any, each once.
func (o *Operator) timelines(ctx context.Context, found *Found, ids []string) error {
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		t, err := o.Trace(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		found.Timelines = append(found.Timelines, *t)
	}
	return nil
}
