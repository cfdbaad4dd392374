package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// StatsMostOutbox is up to how many rows of the outbox Stats counts.
	StatsMostOutbox = 5_000
	// statsTime bounds the statements of Stats, by the server: somebody waits who asks again soon.
	statsTime = 1500 * time.Millisecond
)

// Stats are how the whole is doing, as the leading relay last kept it: consumers follow within a second or, when nothing but their holds
// and letters changes, within five; with a great many of those it takes longer, since counting them may take a fiftieth of the time.
type Stats struct {
	// Counted says that some relay has kept something, and Age how long ago the last one did, in seconds. It grows where none leads.
	Counted bool    `json:"counted"`
	Age     float64 `json:"age_seconds"`
	// Leads says whether a relay does, and Head how many events it has moved into the log, ever: these, and the outbox, are as they are now.
	Leads bool  `json:"leads"`
	Head  int64 `json:"head"`
	// Outbox counts the rows that are not yet relayed, up to StatsMostOutbox; OutboxOldestAge is the age of the first, in seconds.
	Outbox          int64   `json:"outbox"`
	OutboxOldestAge float64 `json:"outbox_oldest_age_seconds"`
	// Quarantined rows were refused by the log, or follow such.
	Quarantined int64           `json:"quarantined"`
	Consumers   []ConsumerStats `json:"consumers"`
	Jobs        []JobCount      `json:"jobs"`
}

// ConsumerStats are as in ConsumerStatus.
type ConsumerStats struct {
	Name   string `json:"name"`
	Paused bool   `json:"paused"`
	// Counted is false, and the rest 0, as long as nothing is kept of it: it is new, or no relay has led since.
	Counted   bool    `json:"counted"`
	Lag       int64   `json:"lag"`
	OldestAge float64 `json:"oldest_age_seconds"`
	InFlight  int64   `json:"in_flight"`
	HeldKeys  int64   `json:"held_keys"`
	Waiting   int64   `json:"waiting"`
	Dead      int64   `json:"dead"`
	// Letters are the dead letters, also those whose keys went on (OnDead).
	Letters int64 `json:"letters"`
}

// JobCount is how many jobs a queue has in a state. Queues that are not the engine's count as one, other.
type JobCount struct {
	Queue string `json:"queue"`
	State string `json:"state"`
	Jobs  int64  `json:"jobs"`
}

// Stats returns what is kept. It costs a few milliseconds of the server's time at most, however much there is to do.
func (o *Operator) Stats(ctx context.Context) (*Stats, error) {
	var (
		relay     outboxdb.StatsRelayRow
		consumers []outboxdb.StatsListRow
	)
	err := o.look(ctx, statsTime, func(b *pgx.Batch) {
		queueRow(b, &relay, o.schema.sql(outboxdb.StatsRelay), RelayDeadAfter.Seconds(), int32(StatsMostOutbox))
		queueRows(b, &consumers, o.schema.sql(outboxdb.StatsList))
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: read statistics: %w", err)
	}
	s := &Stats{
		Counted: relay.Counted, Age: max(0, relay.AgeSeconds), Leads: relay.Leads, Head: relay.Head,
		Outbox: relay.Outbox, OutboxOldestAge: max(0, relay.OldestSeconds), Quarantined: relay.Quarantined, Consumers: []ConsumerStats{},
	}
	if err := json.Unmarshal(relay.Jobs, &s.Jobs); err != nil {
		return nil, fmt.Errorf("outbox: read statistics of jobs: %w", err)
	}
	for _, c := range consumers {
		s.Consumers = append(s.Consumers, ConsumerStats{
			Name: c.Name, Paused: c.Paused, Counted: c.Counted, Lag: c.Lag, OldestAge: max(0, c.OldestSeconds), InFlight: c.InFlight,
			HeldKeys: c.HeldKeys, Waiting: c.Waiting, Dead: c.Dead, Letters: c.Letters,
		})
	}
	return s, nil
}

// look reads in one round trip, with the engine's plans: they are by an index, also where a table that is full now was empty when they
// were made.
func (o *Operator) look(ctx context.Context, within time.Duration, read func(*pgx.Batch)) error {
	conn, err := o.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	tx, err := pipelineOn(ctx, conn, "begin isolation level read committed read only", within, within, func(b *pgx.Batch) {
		read(b)
		b.Queue("commit")
	})
	if err != nil {
		return err
	}
	tx.commits()
	tx.end()
	return nil
}
