package outbox_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// everywhere returns a rig whose consumer c has an event in every kind of place, by its number: 0 is processed, 1 dead, 2 waiting,
// 5 in flight, and 9 ahead of the cursor.
func everywhere(t *testing.T) *rig {
	t.Helper()
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
	return r
}

func kinds(report *outbox.CheckReport) []string {
	var kinds []string
	for _, p := range report.Problems {
		kinds = append(kinds, p.Kind)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// TestCheckFindsDamage plants each kind of it into a database with an event in every kind of place.
func TestCheckFindsDamage(t *testing.T) {
	t.Parallel()
	again := everywhere(t).save()
	const n = ` where (data->>'n')::int = `
	for name, c := range map[string]struct {
		damage string
		kinds  []string
	}{
		"processed row lost":    {`delete from processed_events where event_id = (select id from events` + n + `0)`, []string{"nowhere"}},
		"waiting row lost":      {`delete from waiting`, []string{"nowhere"}},
		"hold lost":             {`delete from holds where dead_at is not null`, []string{"letter", "stranded"}},
		"hold lost in flight":   {`delete from holds where dead_at is null`, []string{"nowhere"}},
		"letter lost":           {`delete from discarded_jobs`, []string{"letter", "nowhere"}},
		"letter closed":         {`update discarded_jobs set state = 'replayed'`, []string{"letter", "nowhere"}},
		"replay lost":           {`with l as (update discarded_jobs set state = 'replaying') delete from holds where dead_at is not null`, []string{"nowhere", "stranded"}},
		"hold revived alone":    {`update holds set dead_at = null where dead_at is not null`, []string{"letter", "twice"}},
		"job lost":              {`update holds set job_id = 0, changed_at = now() - interval '1 hour' where dead_at is null`, []string{"idle"}},
		"event lost":            {`delete from events where pos = 1`, []string{"gap"}},
		"last event lost":       {`delete from events where pos = (select max(pos) from events)`, []string{"gap"}},
		"dead event lost":       {`delete from events` + n + `1`, []string{"gap", "lost"}},
		"waiting event lost":    {`delete from events` + n + `2`, []string{"gap", "lost"}},
		"head set back":         {`update relay_state set head = head - 1`, []string{"head"}},
		"position taken twice":  {`insert into events select pos, seq + 100, gen_random_uuid(), type, 'a', (hashtextextended('a', 0) & 63)::int2, data, correlation_id, null, null, '', 1, now() from events` + n + `9`, []string{"duplicate"}},
		"moved twice":           {`with h as (update relay_state set head = head + 1 returning head) insert into events select h.head, seq, id, type, key, lane, data, correlation_id, null, null, '', 1, occurred_at from events, h` + n + `0`, []string{"duplicate", "order"}},
		"in another lane":       {`update events set lane = (lane + 1) % 64` + n + `9`, []string{"lane"}},
		"waits in another lane": {`update waiting set lane = (lane + 1) % 64`, []string{"lane", "lost"}},
		"held in another lane":  {`update holds set lane = (lane + 1) % 64 where dead_at is null`, []string{"lane", "lost"}},
		"out of order":          {`update events set seq = seq + 100, occurred_at = occurred_at + interval '1 hour'` + n + `0`, []string{"order"}},
		"held for nobody":       {`update holds set consumer = 'x' where dead_at is null`, []string{"lost", "nowhere"}},
		"cursors lost":          {`delete from cursors`, []string{"cursor", "nowhere"}},
		"cursors at the head":   {`update cursors set pos = (select head from relay_state)`, []string{"nowhere"}},
		"cursor above the head": {`update cursors set pos = 1000 where lane = (select lane from events` + n + `9)`, []string{"cursor", "nowhere"}},
		"cursor set back":       {`update cursors set pos = 0`, []string{"twice"}},
		"cursor in no run":      {`update cursors set run = 77 where lane = 0`, []string{"cursor"}},
		"cursor in another's run": {`with r as (insert into runs (consumer, from_pos, to_pos, events, appends, actor, reason) values ('c', 3, 5, 1, false, '', '') returning id),
			l as (insert into run_lanes select r.id, 0, 5, 5 from r) update cursors set run = (select id from r), pos = 1 where lane = 0`, []string{"cursor"}},
		"quarantined": {`insert into quarantine select 1000, id, type, key, data, correlation_id, null, null, '', 1, now(), 'x' from events where pos = 1`, []string{"quarantined"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := again(t)
			r.exec(c.damage)
			report, err := r.op.Check(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.kinds, kinds(report), "%v", report.Problems)
		})
	}
}

// TestCheckFindsAnEventInTwoPlaces: in each two of them that it can be in.
func TestCheckFindsAnEventInTwoPlaces(t *testing.T) {
	t.Parallel()
	r := everywhere(t)
	letter := func(state string, skipped bool) [2]string {
		return [2]string{
			fmt.Sprintf(`insert into discarded_jobs (consumer, event_id, type, key, lane, pos, data, correlation_id, attempts, errors, error, state, skipped)
				select 'c', id, type, key, lane, pos, data, correlation_id, 1, '[]', '', '%s', %t from events where (data->>'n')::int = $1`, state, skipped),
			`delete from discarded_jobs where event_id = (select id from events where (data->>'n')::int = $1)`,
		}
	}
	there := map[string]int{"processed": 0, "dead": 1, "waiting": 2, "in flight": 5, "ahead of the cursor": 9}
	for also, plant := range map[string][2]string{
		"ahead of the cursor": {
			`update cursors k set pos = k.pos - 1000 from events e where (e.data->>'n')::int = $1 and k.lane = e.lane`,
			`update cursors k set pos = k.pos + 1000 from events e where (e.data->>'n')::int = $1 and k.lane = e.lane`,
		},
		"waiting": {
			`insert into waiting (consumer, key, pos, event_id, lane) select 'c', key, pos, id, lane from events where (data->>'n')::int = $1`,
			`delete from waiting where event_id = (select id from events where (data->>'n')::int = $1)`,
		},
		"in flight": {
			`insert into holds (consumer, event_id, key, lane, pos, reason) select 'c', id, key, lane, pos, 'failed' from events where (data->>'n')::int = $1`,
			`delete from holds where event_id = (select id from events where (data->>'n')::int = $1)`,
		},
		"processed": {
			`insert into processed_events (consumer, event_id) select 'c', id from events where (data->>'n')::int = $1`,
			`delete from processed_events where event_id = (select id from events where (data->>'n')::int = $1)`,
		},
		"dead": letter("dead", false), "skipped": letter("dead", true), "dismissed": letter("dismissed", false),
	} {
		for place, n := range there {
			letters := []string{"dead", "skipped", "dismissed"}
			if also == place || place == "dead" && (slices.Contains(letters, also) || also == "in flight") {
				continue // an event has one letter and one hold
			}
			r.exec(plant[0], n)
			report, err := r.op.Check(t.Context())
			require.NoError(t, err)
			id := one[uuid.UUID](r, `select id from events where (data->>'n')::int = $1`, n)
			require.True(t, slices.ContainsFunc(report.Problems, func(p outbox.CheckProblem) bool {
				both := fmt.Sprintf("note.taken at position %d is ", one[int64](r, `select pos from events where id = $1`, id))
				return p.Kind == "twice" && p.EventID == id.String() && (p.Detail == both+place+" and "+also || p.Detail == both+also+" and "+place)
			}), "%s and %s: %v", place, also, report.Problems)
			r.exec(plant[1], n)
			r.agrees()
		}
	}
}

// Nothing is wrong with numbers that begin anew, as those of an upgraded database do, as long as time goes on; with ids that are no
// UUIDv7; or with an id that a producer wrote twice, while one is ahead of the cursor or waits and the other is processed, or in flight.
func TestCheckRaisesNoFalseAlarm(t *testing.T) {
	t.Parallel()
	r := everywhere(t)
	r.exec(`update events set seq = seq + 100 where (data->>'n')::int = 0`)
	r.agrees()
	again := `insert into outbox (id, type, key, data, correlation_id) select id, type, key, '{"n": 77}', 'x' from events where (data->>'n')::int = $1`
	r.exec(again, 0)
	r.exec(again, 5)
	r.relay()
	r.agrees()
	r.exec(`delete from broken`)
	r.settle()
	r.exec(`insert into outbox (id, type, key, data, correlation_id) select gen_random_uuid(), 'note.taken', 'r' || i, '{"n": 7}', 'x' from generate_series(1, 300) i`)
	r.relay()
	r.agrees()
	r.drainAll()
	r.agrees()
	// So many more rows among them than there are events that each event is asked for by itself.
	r.exec(`insert into processed_events (consumer, event_id) select 'c', gen_random_uuid() from generate_series(1, 5000)`)
	r.agrees()
	r.exec(`delete from processed_events where event_id = (select id from events where key = 'r7')`)
	report, err := r.op.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"nowhere"}, kinds(report))
}

// TestCheckAsksForIDsOutOfLine: processed_events is read where nearly all ids are. Of those at the ends an event that is processed before
// its turn must not be overlooked.
func TestCheckAsksForIDsOutOfLine(t *testing.T) {
	t.Parallel()
	r := failing(t, "c")
	r.fill("k", 400)
	r.agrees()
	for _, order := range []string{"id", "id desc"} {
		r.exec(`insert into processed_events (consumer, event_id) select 'c', id from events order by ` + order + ` limit 1`)
		report, err := r.op.Check(t.Context())
		require.NoError(t, err)
		require.Len(t, report.Problems, 1)
		require.Equal(t, "twice", report.Problems[0].Kind)
		r.exec(`delete from processed_events`)
	}
}
