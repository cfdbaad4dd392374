package webhooks_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// An endpoint to which nothing gets through for days is disabled, once, and goes on where it was when it is enabled.
func TestDisabledAfterDaysOfFailure(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	rec := newReceiver(t)
	rec.answers(func(http.ResponseWriter, got) int { return 500 })
	r.create("crm", rec.url, "*")
	r.work()
	for key := range 8 {
		r.append("note.taken", fmt.Sprint("k", key), 1, 2)
	}
	r.until(`select failing_since is not null from webhooks`)
	require.Equal(t, webhooks.Failing, r.get("crm").State)
	r.exec(`update webhooks set failing_since = failing_since - interval '71 hours'`)
	calls := rec.calls()
	require.Eventually(t, func() bool { return rec.calls() > calls+8 }, 2*time.Minute, 20*time.Millisecond)
	r.holds(`select paused_at is null from consumers`)
	r.exec(`update webhooks set failing_since = failing_since - interval '61 minutes'`)
	r.until(`select paused_at is not null from consumers`)
	e := r.get("crm")
	require.Equal(t, webhooks.Disabled, e.State)
	require.NotNil(t, e.DisabledAt)
	require.Contains(t, e.DisabledReason, "nothing but failures since "+e.FailingSince.Format(time.RFC3339))
	require.Contains(t, e.DisabledReason, "answered 500")
	r.until(`select not exists (select from river_job where kind = 'outbox_deliver' and state = 'running')`)
	r.holds(`select count(*) = 1 from audit where action = 'disable' and target = 'webhook crm' and actor = 'pgoutbox'`)
	r.holds(`select count(*) = 1 from audit where action = 'pause'`)
	require.Equal(t, 1, strings.Count(r.log.String(), "webhook disabled"))
	r.holds(`select not exists (select from discarded_jobs)`)
	r.agrees()

	rec.answers(func(http.ResponseWriter, got) int { return 200 })
	require.NoError(t, r.store.Enable(ctx, "crm", anna))
	require.Nil(t, r.get("crm").DisabledAt)
	require.Nil(t, r.get("crm").FailingSince)
	rec.takes(16)
	for key := range 8 {
		require.Equal(t, []int{1, 2}, rec.of(fmt.Sprint("k", key)))
	}
	r.until(`select not exists (select from holds)`)
	require.Equal(t, webhooks.Working, r.get("crm").State)
	r.agrees()
}

// Processes that find at the same time that an endpoint is to be disabled do it once; and not again where somebody has just enabled it.
func TestDisabledOnce(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	rec := newReceiver(t)
	rec.answers(func(http.ResponseWriter, got) int { return 500 })
	r.create("crm", rec.url, "*")
	stores := []*webhooks.Store{r.store, r.another(), r.another()}
	fail := func() {
		var all sync.WaitGroup
		for n := range 12 {
			all.Go(func() {
				_, err := webhooks.Deliver(ctx, stores[n%len(stores)], received("crm"))
				require.Error(t, err)
			})
		}
		all.Wait()
	}
	fail()
	require.Equal(t, webhooks.Failing, r.get("crm").State)
	require.Equal(t, 1, strings.Count(r.log.String(), "webhook begins to fail"))
	r.exec(`update webhooks set failing_since = failing_since - interval '73 hours'`)
	fail()
	require.Equal(t, webhooks.Disabled, r.get("crm").State)
	require.Equal(t, 1, strings.Count(r.log.String(), "webhook disabled"))
	r.holds(`select count(*) = 1 from audit where action = 'disable'`)
	r.holds(`select count(*) = 1 from audit where action = 'pause'`)

	// One that is resumed as a consumer, and not enabled, is as it was: its next failure disables it again.
	require.NoError(t, r.op.Resume(ctx, "webhook-crm", anna))
	require.Equal(t, webhooks.Failing, r.get("crm").State)
	fail()
	require.Equal(t, webhooks.Disabled, r.get("crm").State)
	r.holds(`select count(*) = 2 from audit where action = 'disable'`)
	require.NoError(t, r.store.Enable(ctx, "crm", anna))
	fail()
	require.Equal(t, webhooks.Failing, r.get("crm").State)

	// A success ends it all, and so does another URL; a failure of the old one says nothing then.
	rec.answers(func(http.ResponseWriter, got) int { return 200 })
	_, err := webhooks.Deliver(ctx, r.store, received("crm"))
	require.NoError(t, err)
	require.Equal(t, webhooks.Working, r.get("crm").State)
	entered, leave := make(chan struct{}), make(chan struct{})
	rec.answers(func(http.ResponseWriter, got) int {
		close(entered)
		<-leave
		return 500
	})
	done := make(chan error)
	go func() {
		_, err := webhooks.Deliver(ctx, r.store, received("crm"))
		done <- err
	}()
	<-entered
	url := "https://new.example/"
	_, err = r.store.Update(ctx, "crm", webhooks.Change{URL: &url}, anna)
	require.NoError(t, err)
	close(leave)
	require.Error(t, <-done)
	require.Equal(t, webhooks.Working, r.get("crm").State)
	require.Nil(t, r.get("crm").LastAt)
}

func TestGoneDisablesAtOnce(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	rec := newReceiver(t)
	rec.answers(func(http.ResponseWriter, got) int { return 410 })
	r.create("crm", rec.url, "*")
	r.work()
	r.append("note.taken", "k", 1, 2)
	r.until(`select paused_at is not null from consumers`)
	e := r.get("crm")
	require.Equal(t, webhooks.Disabled, e.State)
	require.Equal(t, "it answered 410: it is gone", e.DisabledReason)
	require.Equal(t, 410, *e.LastStatus)
	r.until(`select not exists (select from river_job where kind = 'outbox_deliver' and state = 'running')`)
	for _, g := range rec.all {
		require.Equal(t, 1, g.Data.N, "the next of the key waits")
	}
	rec.answers(func(http.ResponseWriter, got) int { return 200 })
	require.NoError(t, r.store.Enable(ctx, "crm", anna))
	rec.takes(2)
	require.Equal(t, []int{1, 2}, rec.of("k"), "the event that it refused is not lost")
}

func TestDisabledAndPausedByHand(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	rec := newReceiver(t)
	r.create("crm", rec.url, "*")
	require.NoError(t, r.op.Pause(ctx, "webhook-crm", anna))
	require.Equal(t, webhooks.Paused, r.get("crm").State)
	require.NoError(t, r.store.Enable(ctx, "crm", anna))
	require.Equal(t, webhooks.Working, r.get("crm").State)
	require.NoError(t, r.store.Disable(ctx, "crm", outbox.Action{Actor: "anna", Reason: strings.Repeat("ä", 1000)}))
	require.NoError(t, r.store.Disable(ctx, "crm", anna))
	require.Equal(t, "by anna: a test", r.get("crm").DisabledReason)

	// It can be tried while nothing else is sent.
	result, err := r.store.Test(ctx, "crm", anna)
	require.NoError(t, err)
	require.Equal(t, 200, *result.Status)
	require.Empty(t, result.Error)
	require.Positive(t, result.DurationMS)
	require.Equal(t, webhooks.TestType, rec.taken()[0].Type)
	rec.answers(func(http.ResponseWriter, got) int { return 418 })
	result, err = r.store.Test(ctx, "crm", anna)
	require.NoError(t, err)
	require.Equal(t, 418, *result.Status)
	require.Equal(t, "answered 418", result.Error)
	url := "https://127.0.0.1:1/"
	_, err = r.store.Update(ctx, "crm", webhooks.Change{URL: &url}, anna)
	require.NoError(t, err)
	result, err = r.store.Test(ctx, "crm", anna)
	require.NoError(t, err)
	require.Nil(t, result.Status)
	require.Equal(t, "no connection", result.Error)
	e := r.get("crm")
	require.Equal(t, webhooks.Disabled, e.State)
	require.Nil(t, e.LastAt, "a test is no delivery")
	r.holds(`select count(*) = 3 from audit where action = 'test'`)
}

// What comes to an endpoint that is enabled after it failed ends the failure that is still told of it.
func TestEnabledAfterAFailure(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	r.work()
	rec := newReceiver(t)
	var up atomic.Bool
	rec.answers(func(http.ResponseWriter, got) int {
		if up.Load() {
			return 204
		}
		return 500
	})
	r.create("crm", rec.url, "*")
	r.append("note.taken", "k", 1)
	r.until(`select last_status = 500 from webhooks`)
	require.NoError(t, r.store.Disable(ctx, "crm", anna))
	r.until(`select not exists (select from river_job where kind = 'outbox_deliver' and state = 'running')`)
	up.Store(true)
	require.NoError(t, r.store.Enable(ctx, "crm", anna))
	r.until(`select failing_since is null and last_status = 204 and last_error is null from webhooks`)
	require.Equal(t, webhooks.Working, r.get("crm").State)
}
