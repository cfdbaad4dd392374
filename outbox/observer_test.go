package outbox_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// notes is an Observer that notes what it is told.
type notes struct {
	mu   sync.Mutex
	said []string
}

func (n *notes) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, fmt.Sprintf(format, args...))
}

// told returns what was said since it was last asked.
func (n *notes) told() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	said := n.said
	n.said = nil
	return said
}

func (n *notes) ObserveBatch(b outbox.BatchOutcome) {
	took := b.Took > 0
	b.Took = 0
	n.note("batch %v %+v", took, b)
}

func (n *notes) ObserveAttempt(consumer, outcome string, took time.Duration) {
	n.note("attempt %v %s %s", took > 0, consumer, outcome)
}
func (n *notes) ObserveRelay(events int) { n.note("relay %d", events) }
func (n *notes) ObserveLead(leads bool)  { n.note("lead %v", leads) }

// An observer is told once of each batch and of each attempt, of what became of the events in it.
func TestObserverIsTold(t *testing.T) {
	t.Parallel()
	reg, told := outbox.NewRegistry(), &notes{}
	outbox.Handle(reg, "c", fallible, outbox.On("note.*"))
	r := newRigOn(t, testdb.Pool(t), reg, outbox.Config{Observer: told})
	r.exec(`create table broken (n int)`)
	r.exec(`insert into broken values (2)`)
	r.append("k", 1, 2, 3, 4)
	require.Empty(t, told.told())
	r.relay()
	require.Equal(t, []string{"lead true", "relay 4", "lead false"}, told.told())

	batch := func(b outbox.BatchOutcome) string {
		b.Consumer = "c"
		return fmt.Sprintf("batch true %+v", b)
	}
	r.drain("c", "k")
	require.Equal(t, []string{batch(outbox.BatchOutcome{Applied: 1, Failed: 1, Parked: 2})}, told.told())
	r.deliverAll()
	require.Equal(t, []string{"attempt true c failed"}, told.told())
	r.exec(`delete from broken`)
	r.deliverAll()
	require.Equal(t, []string{"attempt true c applied"}, told.told())
	r.drain("c", "k")
	require.Equal(t, []string{batch(outbox.BatchOutcome{Applied: 2})}, told.told(), "what waits is counted when it begins to")
	r.drain("c", "k")
	require.Empty(t, told.told(), "nothing was to be done")

	r.append("k", 5)
	r.relay()
	r.exec(`insert into processed_events (consumer, event_id) select 'c', id from events where data->>'n' = '5'`)
	told.told()
	r.drain("c", "k")
	require.Equal(t, []string{batch(outbox.BatchOutcome{Duplicate: 1})}, told.told())
}
