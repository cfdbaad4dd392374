package webhooks_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pgoutbox/pgoutbox/internal/telemetry"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/migrations"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
	"github.com/pgoutbox/pgoutbox/workers"
)

// An endpoint that is made while the workers run gets its types, signed, and an endpoint that takes everything has nothing written about it.
func TestEndpointsGetWhatTheySubscribeTo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.work()
	rec := newReceiver(t)
	r.append("note.taken", "k", 0) // before it is there
	r.until(`select not exists (select from outbox)`)
	rec.secrets = []string{r.create("crm", rec.url, "note.*")}
	before := one[string](r, `select xmin::text from webhooks`)
	for key := range 5 {
		r.append("note.taken", fmt.Sprint("k", key), 1, 2, 3)
		r.append("other.thing", fmt.Sprint("k", key), 9)
	}
	rec.takes(15)
	r.until(`select not exists (select from holds)`)
	require.Equal(t, 15, rec.calls())
	for key := range 5 {
		require.Equal(t, []int{1, 2, 3}, rec.of(fmt.Sprint("k", key)))
	}
	last := ""
	for _, g := range rec.taken() {
		require.Equal(t, "note.taken", g.Type)
		if g.Subject == "k0" {
			require.Greater(t, g.Sequence, last)
			last = g.Sequence
		}
	}
	require.Equal(t, before, one[string](r, `select xmin::text from webhooks`), "what works costs no write")
	e := r.get("crm")
	require.Equal(t, webhooks.Working, e.State)
	require.Nil(t, e.LastAt)
	r.agrees()
}

// Keys stay in order across failures, and are in nobody's way.
func TestOrderAcrossFailures(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := newReceiver(t)
	failed := map[string]int{}
	rec.answers(func(_ http.ResponseWriter, g got) int {
		if failed[g.ID]++; g.Data.N%2 == 1 && failed[g.ID] <= 2 {
			return 500
		}
		return 204
	})
	rec.secrets = []string{r.create("crm", rec.url, "*")}
	r.work()
	for n := range 6 {
		for _, key := range []string{"a", "b", "c"} {
			r.append("note.taken", key, n)
		}
	}
	rec.takes(18)
	for _, key := range []string{"a", "b", "c"} {
		require.Equal(t, []int{0, 1, 2, 3, 4, 5}, rec.of(key))
	}
	require.Equal(t, 18+2*9, rec.calls())
	r.until(`select not exists (select from holds)`)
	r.holds(`select count(*) = 18 from delivery_log where outcome = 'failed' and error = 'answered 500'`)
	e := r.get("crm")
	require.Equal(t, webhooks.Working, e.State)
	require.Nil(t, e.FailingSince)
	require.Equal(t, 204, *e.LastStatus, "the success that ended it")
	require.Empty(t, e.LastError)
	require.NotNil(t, e.LastAt)
	require.Contains(t, r.log.String(), "webhook begins to fail")
	require.Contains(t, r.log.String(), "webhook works again")
	r.agrees()
}

// A dead endpoint holds up no other.
func TestDeadEndpointHoldsUpNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	r.create("dead", "http://"+l.Addr().String()+"/", "*")
	rec := newReceiver(t)
	r.create("alive", rec.url, "*")
	r.work()
	for n := range 10 {
		r.append("note.taken", "k", n)
	}
	rec.takes(10)
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, rec.of("k"))
	r.until(`select failing_since is not null and last_status is null and last_error = 'no connection' from webhooks where consumer = 'webhook-dead'`)
	require.Equal(t, webhooks.Failing, r.get("dead").State)
	require.Nil(t, r.get("dead").LastStatus)
	require.Equal(t, webhooks.Working, r.get("alive").State)
	r.holds(`select count(*) = 9 from waiting where consumer = 'webhook-dead'`)
	r.agrees()
}

// What an endpoint does not take in all its attempts is a dead letter, which is replayed like any other; it is not disabled for it.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := newReceiver(t)
	rec.answers(func(_ http.ResponseWriter, g got) int {
		if g.Data.N == 1 {
			return 413
		}
		return 200
	})
	r.create("crm", rec.url, "*")
	reg, err := r.store.Consumers(t.Context())
	require.NoError(t, err)
	require.Equal(t, webhooks.MaxAttempts, reg.Consumer("webhook-crm").MaxAttempts)
	r.work(outbox.MaxAttempts(3))
	r.append("note.taken", "k", 0, 1, 2)
	r.until(`select count(*) = 1 from discarded_jobs where state = 'dead' and attempts = 3 and consumer = 'webhook-crm'`)
	require.Equal(t, []int{0}, rec.of("k"))
	require.NotEqual(t, webhooks.Disabled, r.get("crm").State)
	r.agrees()
	rec.answers(func(http.ResponseWriter, got) int { return 200 })
	_, err = r.op.Replay(t.Context(), one[int64](r, `select id from discarded_jobs`), nil, anna)
	require.NoError(t, err)
	rec.takes(3)
	require.Equal(t, []int{0, 1, 2}, rec.of("k"))
	r.until(`select not exists (select from holds)`)
	r.agrees()
}

// Retry-After is heeded, spends no attempt, and not for ever.
func TestRetryAfterSpendsNoAttempt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := newReceiver(t)
	asked := 0
	rec.answers(func(w http.ResponseWriter, _ got) int {
		if asked++; asked <= 2 {
			w.Header().Set("Retry-After", "600")
			return 503
		}
		return 200
	})
	r.create("crm", rec.url, "*")
	r.work()
	r.append("note.taken", "k", 0, 1)
	for n := range 2 {
		r.until(`select exists (select from river_job where kind = 'outbox_deliver' and state = 'scheduled' and attempt = 0
			and metadata->>'snoozes' = $1 and scheduled_at > clock_timestamp() + interval '5 minutes')`, fmt.Sprint(n+1))
		r.exec(`update river_job set scheduled_at = clock_timestamp() where kind = 'outbox_deliver'`)
	}
	rec.takes(2)
	require.Equal(t, []int{0, 1}, rec.of("k"))
	r.until(`select not exists (select from holds)`)
	r.agrees()

	rec.answers(func(w http.ResponseWriter, _ got) int {
		w.Header().Set("Retry-After", "86400")
		return 429
	})
	e := received("crm")
	var later *outbox.RetryLaterError
	_, err := webhooks.Deliver(t.Context(), r.store, e)
	require.ErrorAs(t, err, &later)
	require.Equal(t, time.Hour, later.After)
	e.Attempt = webhooks.MaxAttempts
	_, err = webhooks.Deliver(t.Context(), r.store, e)
	require.Error(t, err)
	require.False(t, errors.As(err, &later), "it has had its share")
}

// Attempts last for longer than it takes to be disabled.
func TestDisabledBeforeAnythingDies(t *testing.T) {
	t.Parallel()
	total := time.Duration(0)
	for n, wait := 1, webhooks.RetryBase; n < webhooks.MaxAttempts; n, wait = n+1, min(2*wait, webhooks.RetryMax) {
		total += wait
	}
	require.Greater(t, total, webhooks.DefaultDisableAfter+webhooks.RetryMax+webhooks.RetryMax/10)
	require.Equal(t, 99*time.Hour, total.Truncate(time.Hour), "as it is said in the documentation")
}

// Spans lead from the event's producer to the endpoint.
func TestTracesReachTheEndpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := newReceiver(t)
	r.create("crm", rec.url+"/canary-path?token=canary-query", "*")
	spans := tracetest.NewInMemoryExporter()
	by := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithIDGenerator(telemetry.IDs{}))
	r.workWith(workers.Config{TracerProvider: by})
	ctx, request := by.Tracer("test").Start(t.Context(), "request")
	require.NoError(t, outbox.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.taken", Key: "canary-key", Data: note{1}})
		return err
	}))
	request.End()
	rec.takes(1)
	require.Contains(t, rec.taken()[0].traceparent, request.SpanContext().TraceID().String())
	require.Eventually(t, func() bool { return strings.Contains(fmt.Sprint(spans.GetSpans()), "deliver note.taken") }, 2*time.Minute, 20*time.Millisecond)
	names := map[string]string{}
	for _, s := range spans.GetSpans() {
		names[s.SpanContext.SpanID().String()] = s.Name
		for _, a := range s.Attributes {
			require.NotContains(t, a.Value.String(), "canary")
		}
	}
	for _, s := range spans.GetSpans() {
		if s.Name == "send webhook" {
			require.Equal(t, "deliver note.taken", names[s.Parent.SpanID().String()])
			require.Contains(t, rec.taken()[0].traceparent, s.SpanContext.SpanID().String())
		}
	}
	require.Contains(t, fmt.Sprint(names), "send webhook")
}

// In a schema of its own, beside another outbox.
func TestEndpointsInASchema(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	const schema = outbox.Schema("Mine_too")
	require.NoError(t, migrations.Up(t.Context(), url, migrations.Options{Schema: string(schema)}))
	r := newRig(t)
	r.pool = testdb.PoolOn(t, url)
	jobs, err := workers.NewJobs(r.pool, schema)
	require.NoError(t, err)
	r.op = outbox.NewOperator(r.pool, jobs, schema, nil)
	r.store = webhooks.New(r.pool, r.op, schema, webhooks.Options{Networks: loopback})
	rec := newReceiver(t)
	r.create("crm", rec.url, "*")
	r.workWith(workers.Config{Schema: schema})
	first := true
	rec.answers(func(http.ResponseWriter, got) int {
		if first {
			first = false
			return 500
		}
		return 200
	})
	r.exec(`select "Mine_too".outbox_append('note.taken', 'k', '{"n": 3}')`)
	rec.takes(1)
	_, err = r.store.Rotate(t.Context(), "crm", anna)
	require.NoError(t, err)
	require.NoError(t, r.store.Disable(t.Context(), "crm", anna))
	require.NoError(t, r.store.Enable(t.Context(), "crm", anna))
	r.until(`select failing_since is null and last_status = 200 from "Mine_too".webhooks`)
	r.holds(`select not exists (select from public.webhooks)`)
}
