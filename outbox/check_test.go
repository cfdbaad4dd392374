package outbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// TestCheckFindsDamage plants each kind of it into a database with an event in every kind of place.
func TestCheckFindsDamage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ damage, kind string }{
		"processed row lost": {`delete from processed_events where event_id = (select id from events where (data->>'n')::int = 0)`, "nowhere"},
		"processed before its turn": {
			`insert into processed_events (consumer, event_id) select 'c', id from events where (data->>'n')::int = 9`, "twice",
		},
		"processed and dead":     {`insert into processed_events (consumer, event_id) select 'c', event_id from discarded_jobs`, "twice"},
		"processed and waiting":  {`insert into processed_events (consumer, event_id) select 'c', event_id from waiting`, "twice"},
		"processed in flight":    {`insert into processed_events (consumer, event_id) select 'c', event_id from holds where dead_at is null`, "twice"},
		"hold lost":              {`delete from holds where dead_at is not null`, "stranded"},
		"hold lost in flight":    {`delete from holds where dead_at is null`, "nowhere"},
		"waiting row lost":       {`delete from waiting`, "nowhere"},
		"letter lost":            {`delete from discarded_jobs`, "nowhere"},
		"event lost":             {`delete from events where pos = 2`, "gap"},
		"last event lost":        {`delete from events where pos = (select max(pos) from events)`, "gap"},
		"cursor lost":            {`delete from cursors`, "nowhere"},
		"cursor ahead of itself": {`update cursors set pos = (select head from relay_state)`, "nowhere"},
		"quarantined": {
			`insert into quarantine select 1000, id, type, key, data, correlation_id, null, null, '', 1, now(), 'x' from events where pos = 1`, "quarantined",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := failing(t, "c", outbox.MaxAttempts(2))
			r.exec(`insert into broken values (1), (5)`)
			r.append("k", 0, 1, 2)
			r.settle()
			r.append("j", 5)
			r.relay()
			r.drainAll()
			r.append("i", 9)
			r.relay()
			r.agrees()
			r.exec(c.damage)
			report, err := r.op.Check(t.Context())
			require.NoError(t, err)
			require.NotEmpty(t, report.Problems)
			require.Equal(t, c.kind, report.Problems[0].Kind, "%v", report.Problems)
		})
	}
}
