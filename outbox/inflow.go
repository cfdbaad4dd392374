package outbox

import (
	"context"
	"fmt"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// Inflow is what came into the log after a position.
type Inflow struct {
	// Head is the log's last position when it was asked.
	Head int64
	// Events counts, for each consumer, the events up to Head that it subscribes to; a consumer without any is left out. Nil: there are
	// more than were to be counted.
	Events map[string]int64
}

// Inflow returns how many events came into the log after a position, for each consumer, if there are no more than most. It reads that
// part of the log.
func (o *Operator) Inflow(ctx context.Context, after, most int64) (*Inflow, error) {
	db := o.schema.on(o.pool)
	head, err := o.q.LogHead(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("outbox: read the head of the log: %w", err)
	}
	if head-after > most {
		return &Inflow{Head: head}, nil
	}
	rows, err := o.q.ConsumersInflow(ctx, db, outboxdb.ConsumersInflowParams{After: after, Upto: head})
	if err != nil {
		return nil, fmt.Errorf("outbox: count what came into the log: %w", err)
	}
	in := &Inflow{Head: head, Events: map[string]int64{}}
	for _, r := range rows {
		in.Events[r.Name] = r.Events
	}
	return in, nil
}
