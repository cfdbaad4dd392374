package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

var actionKeys = []string{"cancel", "delete", "retry"}

// What an operator does with a delivery that waits for its next attempt.
func TestRiverUIAndDeliveriesThatAreDueLater(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"scheduled", "retryable"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			r := newRiverRig(t, 1, workers.Config{})
			r.exec(`insert into broken values (0)`)
			for _, key := range actionKeys {
				r.append("note.taken", key, 0, 1, 2)
			}
			r.in("scheduled", actionKeys...)
			if state == "retryable" {
				// A retry makes the attempt at once that was due in an hour; it fails.
				r.do("retry", 200, r.job("cancel"), r.job("delete"), r.job("retry"))
				r.in("retryable", actionKeys...)
			}
			r.holds(`select not exists (select from effects)`)

			cancelled := r.job("cancel")
			r.do("cancel", 200, cancelled)
			r.do("delete", 200, r.job("delete"))
			first, second := r.dead("cancel"), r.dead("delete")
			r.holds(`select errors::text like '%the job was cancelled%' from discarded_jobs where id = $1`, first)
			r.holds(`select errors::text like '%the job was deleted%' from discarded_jobs where id = $1`, second)

			r.exec(`delete from broken`)
			r.do("retry", 200, r.job("retry"))
			r.ended("retry")
			// River's own retry of what was cancelled is a replay.
			r.do("retry", 200, cancelled)
			r.ended("cancel")
			r.replay(second)
			r.ends(actionKeys...)
			r.holds(`select bool_and(state = 'replayed' and replays = 1) and count(*) = 2 from discarded_jobs`)
		})
	}
}

// What an operator does with a delivery that is under way, or about to be.
func TestRiverUIAndDeliveriesUnderWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, state string
		pollOnly    bool
	}{{"running", "running", false}, {"running, without LISTEN", "running", true}, {"available", "available", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mails := 3
			if c.state == "available" {
				mails = 1
			}
			r := newRiverRig(t, mails, workers.Config{PollOnly: c.pollOnly})
			if c.state == "available" { // another is in the one place there is
				r.append("note.sent", "busy", 0, 1, 2)
				r.in("running", "busy")
			}
			for _, key := range actionKeys {
				r.append("note.sent", key, 0, 1, 2)
			}
			r.in(c.state, actionKeys...)

			cancelled, began := r.job("cancel"), time.Now()
			r.do("cancel", 200, cancelled)
			first := r.dead("cancel")
			t.Logf("cancelled within %s", time.Since(began).Round(time.Millisecond))
			r.do("retry", 200, r.job("retry"))
			if c.state == "running" {
				r.do("delete", 400, r.job("delete")) // River does not delete it
				close(r.gate)
				r.do("retry", 200, cancelled)
				r.ends(actionKeys...)
				r.holds(`select state = 'replayed' from discarded_jobs where id = $1`, first)
				return
			}
			r.do("delete", 200, r.job("delete"))
			second := r.dead("delete")
			close(r.gate)
			r.do("retry", 200, cancelled)
			r.replay(second)
			r.ends(append(actionKeys, "busy")...)
			require.Equal(t, int32(12), r.calls.Load())
		})
	}
}

// A job that River has finished is fenced off by the hold's token: retried, it does nothing, whatever has become of its event.
func TestRiverUIRetriesFinishedJobsInVain(t *testing.T) {
	t.Parallel()
	r := newRiverRig(t, 1, workers.Config{})
	r.exec(`insert into broken values (0)`)
	r.append("note.taken", "k", 0, 1, 2)
	r.in("scheduled", "k")
	old := r.job("k")
	for range 2 {
		r.do("retry", 200, old)
		calls := r.calls.Load()
		require.Eventually(t, func() bool {
			return r.calls.Load() > calls || one[bool](r, `select state = 'discarded' from river_job where id = $1`, old)
		}, 30*time.Second, 10*time.Millisecond)
		r.until(`select state in ('retryable', 'discarded') from river_job where id = $1`, old)
	}
	r.until(`select state = 'discarded' from river_job where id = $1`, old)
	letter := r.dead("k")

	// The event has another job. While that is to run, the database lets no second one be.
	r.replay(letter)
	r.until(`select exists (select from river_job where kind = 'outbox_deliver' and id > $1)`, old)
	r.do("cancel", 200, r.job("k"))
	if r.job("k") == old {
		t.Fatal("the replay has no job of its own")
	}
	r.until(`select state = 'dead' from discarded_jobs where id = $1`, letter)
	retried := func() {
		t.Helper()
		calls := r.calls.Load()
		r.do("retry", 200, old)
		r.until(`select state = 'completed' from river_job where id = $1`, old)
		require.Equal(t, calls, r.calls.Load(), "the handler was called")
	}
	r.exec(`delete from broken`)
	retried()
	r.holds(`select state = 'dead' and replays = 1 from discarded_jobs where id = $1`, letter)
	r.holds(`select not exists (select from effects)`)
	r.dead("k")

	r.replay(letter)
	r.ends("k")
	retried()
	r.ends("k")
	r.holds(`select state = 'replayed' from discarded_jobs where id = $1`, letter)

	// One that was dismissed stays so.
	r.exec(`insert into broken values (0)`)
	r.append("note.taken", "l", 0, 1, 2)
	r.in("scheduled", "l")
	old = r.job("l")
	r.do("cancel", 200, old)
	_, err := r.op.Dismiss(t.Context(), r.dead("l"), outbox.Action{Actor: "anna", Reason: "a test"})
	require.NoError(t, err)
	r.until(`select count(*) = 2 from effects where key = 'l'`)
	r.exec(`delete from broken`)
	retried()
	r.until(`select not exists (select from holds)`)
	require.Equal(t, []int32{1, 2}, one[[]int32](r, `select array_agg(n order by i) from effects where key = 'l'`))
	r.agrees()
}

// While the event's own job is to run, another one that is finished cannot be retried.
func TestRiverUIRefusesASecondJob(t *testing.T) {
	t.Parallel()
	r := newRiverRig(t, 1, workers.Config{})
	r.append("note.sent", "k", 0, 1, 2)
	r.in("running", "k")
	old := r.job("k")
	r.do("cancel", 200, old)
	r.replay(r.dead("k"))
	r.in("running", "k")
	require.NotEqual(t, old, r.job("k"))
	r.do("retry", 409, old)
	r.holds(`select detail ->> 'outcome' = 'not done: answered with 409' from audit order by id desc limit 1`)
	close(r.gate)
	r.ends("k")
}

// Drains and the relay are taken up again, whatever becomes of their jobs.
func TestRiverUIAndTheEnginesOwnJobs(t *testing.T) {
	t.Parallel()
	r := newRiverRig(t, 1, workers.Config{})
	r.until(`select exists (select from river_job where kind = 'outbox_relay' and state = 'running')`)
	relay := func() int64 {
		return one[int64](r, `select id from river_job where kind = 'outbox_relay' and state = 'running' order by id desc limit 1`)
	}
	r.append("note.taken", "before", 0, 1, 2)
	r.ends("before")

	first := relay()
	r.do("delete", 400, first)
	r.do("retry", 200, first)
	began := time.Now()
	r.do("cancel", 200, first)
	r.until(`select state <> 'running' from river_job where id = $1`, first)
	r.append("note.taken", "cancelled", 0, 1, 2)
	r.ends("before", "cancelled")
	t.Logf("a cancelled relay: work goes on after %s", time.Since(began).Round(time.Millisecond))

	// One too many waits for the other, or takes over from it.
	r.do("retry", 200, first)
	r.append("note.taken", "retried", 0, 1, 2)
	r.ends("before", "cancelled", "retried")
	r.do("delete", 200, first)
	status, _ := r.ask("PUT", "/admin/river/api/queues/outbox_relay/pause", "")
	require.Equal(t, 409, status)
	r.append("note.taken", "paused", 0, 1, 2)
	r.ends("before", "cancelled", "retried", "paused")

	// Drains wait for a lock that the handlers' table is under. So there are some that run, and some in the queue.
	tx, err := r.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `lock table effects in exclusive mode`)
	require.NoError(t, err)
	keys := []string{"before", "cancelled", "retried", "paused"}
	for i := range 40 {
		keys = append(keys, "drained-"+string(rune('a'+i%26))+string(rune('a'+i/26)))
		r.append("note.taken", keys[len(keys)-1], 0, 1, 2)
	}
	r.until(`select count(*) filter (where state = 'running') > 0 and count(*) filter (where state = 'available') > 2 from river_job where kind = 'outbox_drain'`)
	waiting := one[[]int64](r, `select array_agg(id order by id) from river_job where kind = 'outbox_drain' and state = 'available'`)
	running := one[[]int64](r, `select array_agg(id) from river_job where kind = 'outbox_drain' and state = 'running'`)
	r.do("retry", 200, waiting[0])
	r.do("cancel", 200, waiting[1])
	r.do("delete", 200, waiting[2])
	for _, id := range append(waiting[3:], running...) { // some may have come to run, or to an end
		for _, action := range []string{"delete", "cancel"} {
			status, body := r.ask("POST", "/admin/river/api/jobs/"+action, fmt.Sprintf(`{"ids":[%d]}`, id))
			require.Contains(t, []int{200, 400, 404}, status, body)
		}
	}
	require.NoError(t, tx.Rollback(t.Context()))
	began = time.Now()
	r.ends(keys...)
	t.Logf("drains that were cancelled or deleted: all is done after %s", time.Since(began).Round(time.Millisecond))
}

// Nobody has started River's UI, and it can still tell what there is.
func TestRiverUINeedsNoStart(t *testing.T) {
	t.Parallel()
	r := newRiverRig(t, 1, workers.Config{})
	r.exec(`insert into broken values (0)`)
	r.append("note.taken", "k", 0, 1, 2)
	r.in("scheduled", "k")
	counted := func() (scheduled struct {
		Count    int
		Accuracy string
	},
	) {
		status, body := r.ask("GET", "/admin/river/api/states", "")
		require.Equal(t, 200, status, body)
		var states map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(body), &states))
		require.NoError(t, json.Unmarshal(states["scheduled"], &scheduled))
		return scheduled
	}
	require.Equal(t, 1, counted().Count)
	require.Equal(t, "exact", counted().Accuracy)
	r.exec(`insert into river_job (kind, queue, args, max_attempts, state, scheduled_at) select 'foreign', 'mine', '{}', 1, 'scheduled', now() + interval '1 h' from generate_series(1, 10100)`)
	r.exec(`analyze river_job`)
	many := counted()
	require.Equal(t, "estimated", many.Accuracy)
	require.InDelta(t, 10101, many.Count, 500)
	for _, path := range []string{"/", "/jobs?state=scheduled", "/queues", "/jobs/1"} {
		status, body := r.ask("GET", "/admin/river"+path, "")
		require.Equal(t, 200, status, path)
		require.Contains(t, body, `src="/admin/river/assets/`)
		require.Equal(t, 1, strings.Count(body, "<script type=\"module\""), "scripts come from files")
		require.Equal(t, 2, strings.Count(body, "<script"), "and one element that is data")
	}
	status, body := r.ask("GET", "/admin/river/api/queues", "")
	require.Equal(t, 200, status)
	require.Contains(t, body, `"outbox_relay"`)
}
