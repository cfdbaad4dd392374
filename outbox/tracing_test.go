package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/internal/telemetry"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// tracedRig is a rig whose spans are kept.
type tracedRig struct {
	*rig
	spans *tracetest.InMemoryExporter
	by    trace.TracerProvider
}

func newTracedRig(t *testing.T, reg *outbox.Registry) *tracedRig {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	by := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithIDGenerator(telemetry.IDs{}))
	return &tracedRig{newRigOn(t, testdb.Pool(t), reg, outbox.Config{TracerProvider: by}), spans, by}
}

// request is a span that something is done in.
func (r *tracedRig) request(name string, do func(ctx context.Context)) trace.TraceID {
	r.t.Helper()
	ctx, span := r.by.Tracer("test").Start(r.t.Context(), name)
	do(ctx)
	span.End()
	return span.SpanContext().TraceID()
}

// taken appends events of one key, as one request each.
func (r *tracedRig) taken(key string, ns ...int) (ids []trace.TraceID) {
	r.t.Helper()
	for _, n := range ns {
		ids = append(ids, r.request("request", func(ctx context.Context) { r.appendIn(ctx, key, n) }))
	}
	return ids
}

func (r *tracedRig) appendIn(ctx context.Context, key string, n int) {
	r.t.Helper()
	require.NoError(r.t, outbox.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.taken", Key: key, Data: note{n}})
		return err
	}))
}

// tree are the spans of a trace, which must hang together, as "name < parent's name", sorted.
func (r *tracedRig) tree(id trace.TraceID) []string {
	r.t.Helper()
	names := map[trace.SpanID]string{}
	for _, s := range r.spans.GetSpans() {
		if s.SpanContext.TraceID() == id {
			names[s.SpanContext.SpanID()] = s.Name
		}
	}
	var edges []string
	for _, s := range r.spans.GetSpans() {
		switch parent, known := names[s.Parent.SpanID()]; {
		case s.SpanContext.TraceID() != id:
		case known:
			edges = append(edges, s.Name+" < "+parent)
		default:
			require.False(r.t, s.Parent.IsValid(), "%s lacks its parent", s.Name)
			edges = append(edges, s.Name)
		}
	}
	slices.Sort(edges)
	return edges
}

// named are the spans of that name.
func (r *tracedRig) named(name string) (found tracetest.SpanStubs) {
	for _, s := range r.spans.GetSpans() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

func attribute(s tracetest.SpanStub, key string) string {
	for _, a := range s.Attributes {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

// keeping registers a consumer that answers each note.taken with a note.kept, and one that mails those, where call is what it calls.
func keeping(reg *outbox.Registry, call func(ctx context.Context) error) {
	outbox.Handle(reg, "keeper", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "note.kept", Key: e.Key, Data: e.Data})
		return err
	}, outbox.On("note.taken"))
	outbox.HandleExternal(reg, "mail", func(ctx context.Context, _ outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, call(ctx)
	}, outbox.On("note.kept"))
}

// outside is a call of a handler, as whatever it uses would trace it.
func outside(ctx context.Context) {
	_, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("test").Start(ctx, "call")
	span.End()
}

// TestOneTrace: what follows from a request is one tree below it, and names nobody.
func TestOneTrace(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	attempts := 0
	keeping(reg, func(ctx context.Context) error {
		outside(ctx)
		if attempts++; attempts == 1 {
			return errors.New("anna@example.com does not answer")
		}
		return nil
	})
	r := newTracedRig(t, reg)
	const planted = 4711_4711_4711_4711 // long enough that no id, no time and no address in memory holds it by chance
	id := r.taken("anna@example.com", planted)[0]
	r.settle()
	require.Equal(t, []string{
		"append note.kept < process note.taken", "append note.taken < request", "call < deliver note.kept", "call < deliver note.kept",
		"deliver note.kept < append note.kept", "deliver note.kept < append note.kept", "process note.taken < append note.taken",
		"relay note.kept < append note.kept", "relay note.taken < append note.taken", "request",
	}, r.tree(id))

	first, second := r.named("deliver note.kept")[0], r.named("deliver note.kept")[1]
	require.Equal(t, []string{"failed", "applied"}, []string{attribute(first, "outbox.outcome"), attribute(second, "outbox.outcome")})
	require.Equal(t, []string{"1", "2"}, []string{attribute(first, "outbox.attempt"), attribute(second, "outbox.attempt")})
	require.Equal(t, codes.Error, first.Status.Code)
	process, drain := r.named("process note.taken")[0], r.named("drain keeper")[0]
	require.Equal(t, "keeper", attribute(process, "messaging.consumer.group.name"))
	require.Equal(t, one[string](r.rig, `select id::text from events where type = 'note.taken'`), attribute(process, "messaging.message.id"))
	require.Equal(t, drain.SpanContext.SpanID(), process.Links[0].SpanContext.SpanID())
	require.Equal(t, process.Parent.SpanID(), drain.Links[0].SpanContext.SpanID())
	require.False(t, drain.Parent.IsValid())
	require.NotContains(t, fmt.Sprintf("%+v", r.spans.GetSpans()), "anna")
	require.NotContains(t, fmt.Sprintf("%+v", r.spans.GetSpans()), strconv.Itoa(planted))
}

// TestTracingOff: no trace context is stored, and nothing is asked that is asked for spans.
func TestTracingOff(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			t.Parallel()
			sent := &statements{}
			cfg, err := pgxpool.ParseConfig(testdb.New(t))
			require.NoError(t, err)
			cfg.ConnConfig.Tracer = sent
			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			reg := outbox.NewRegistry()
			keeping(reg, func(context.Context) error { return nil })
			config := outbox.Config{}
			if on {
				config.TracerProvider = sdktrace.NewTracerProvider()
			}
			r := newRigOn(t, pool, reg, config)
			r.append("k", 1)
			r.settle()
			r.holds(`select count(*) = 2 and count(traceparent) = 0 from events`)
			require.True(t, sent.has("RelayMove"))
			require.Equal(t, on, sent.has("EventsTraced"))
		})
	}
}

// TestUnsampled: who began the trace does not want spans. It goes on all the same, for the log lines.
func TestUnsampled(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	keeping(reg, func(ctx context.Context) error {
		outside(ctx)
		return nil
	})
	r := newTracedRig(t, reg)
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID(uuid.New()), SpanID: trace.SpanID{1}})
	r.appendIn(trace.ContextWithRemoteSpanContext(t.Context(), sc), "k", 1)
	r.settle()
	require.Empty(t, r.spans.GetSpans())
	r.holds(`select count(*) = 2 and bool_and(traceparent = $1) from events`, "00-"+sc.TraceID().String()+"-0100000000000000-00")
	// Nor does what cannot be read do any harm.
	r.exec(`select outbox_append('note.taken', 'k', '{}', null, null, 'nonsense')`)
	r.settle()
	require.Empty(t, r.spans.GetSpans())
	r.holds(`select count(*) = 4 from events`)
}

// outcomes are those of the spans of each event, by its number.
func (r *tracedRig) outcomes(name string) map[string][]string {
	found := map[string][]string{}
	for _, s := range r.named(name) {
		n := one[string](r.rig, `select data->>'n' from events where id = $1`, attribute(s, "messaging.message.id"))
		found[n] = append(found[n], attribute(s, "outbox.outcome"))
	}
	return found
}

// TestSpansOfFailures: what is run again after its neighbour failed has a span for each run, and so has all of a batch that is lost.
func TestSpansOfFailures(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	lost := false
	outbox.Handle(reg, "c", func(ctx context.Context, _ pgx.Tx, e outbox.Received[note]) error {
		switch e.Data.N {
		case 2:
			outbox.Batch(ctx).Queue(`select 1 / $1::int`, 0)
		case 4:
			if !lost {
				lost = true
				return &pgconn.PgError{Code: "40001"}
			}
		}
		return nil
	}, outbox.On("note.*"), outbox.Unordered())
	r := newTracedRig(t, reg)
	r.taken("k", 1, 2, 3)
	r.relay()
	r.drain("c", "k")
	require.Equal(t, map[string][]string{"1": {"rolled_back", "applied"}, "2": {"failed"}, "3": {"rolled_back", "applied"}}, r.outcomes("process note.taken"))
	for _, s := range r.named("process note.taken") {
		require.Equal(t, attribute(s, "outbox.outcome") == "failed", s.Status.Code == codes.Error)
		require.Equal(t, attribute(s, "outbox.outcome") == "failed", attribute(s, "error.type") == "22012")
	}

	r.spans.Reset()
	r.taken("k", 4)
	r.relay()
	r.drain("c", "k")
	require.Equal(t, map[string][]string{"4": {"rolled_back", "applied"}}, r.outcomes("process note.taken"))
	batches := r.named("drain c")
	require.Len(t, batches, 2)
	require.Equal(t, []codes.Code{codes.Error, codes.Unset}, []codes.Code{batches[0].Status.Code, batches[1].Status.Code})
}

// TestSpanOfASet: it is of the batch, with links, and what an event of it causes stays in that event's trace.
func TestSpanOfASet(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.HandleBatch(reg, "set", func(ctx context.Context, tx pgx.Tx, es []outbox.Received[note]) error {
		for _, e := range es {
			if _, err := outbox.Append(e.Context(ctx), tx, outbox.Event{Type: "set.kept", Key: e.Key, Data: e.Data}); err != nil {
				return err
			}
		}
		return nil
	}, outbox.On("note.*"))
	r := newTracedRig(t, reg)
	ids := r.taken("k", 1, 2)
	r.append("k", 3) // of no trace
	r.relay()
	r.drain("set", "k")
	r.relay()
	set, batch := r.named("process set"), r.named("drain set")
	require.Len(t, set, 1)
	require.Equal(t, batch[0].SpanContext.SpanID(), set[0].Parent.SpanID())
	require.Len(t, set[0].Links, 2)
	for _, id := range ids {
		require.Equal(t, []string{"append note.taken < request", "relay note.taken < append note.taken", "relay set.kept < append note.taken", "request"}, r.tree(id))
	}
	r.agrees()
}

// TestSpanOfADeadAttempt: a process that is killed exports nothing. Who finds that does, so that what it called keeps its parent.
func TestSpanOfADeadAttempt(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	hangs, goOn := make(chan struct{}), make(chan struct{})
	keeping(reg, func(ctx context.Context) error {
		outside(ctx)
		hangs <- struct{}{}
		<-goOn
		return nil
	})
	r := newTracedRig(t, reg)
	id := r.taken("k", 1)[0]
	r.relay()
	r.drainAll()
	r.relay()
	r.drainAll()
	job := one[int64](r.rig, `select id from river_job where kind = 'outbox_deliver'`)
	wake := r.zombie(job, hangs, goOn)
	require.Empty(t, r.named("deliver note.kept"))
	r.hungFor(job, "31 seconds")
	require.NoError(t, r.Maintain(t.Context()))
	require.Contains(t, r.tree(id), "call < deliver note.kept")
	dead := r.named("deliver note.kept")
	require.Len(t, dead, 1)
	require.Equal(t, "rescued", attribute(dead[0], "outbox.outcome"))
	require.Equal(t, codes.Error, dead[0].Status.Code)

	// It was only slow: the span is there twice, under one id.
	require.NoError(t, wake())
	again := r.named("deliver note.kept")
	require.Len(t, again, 2)
	require.Equal(t, "fenced", attribute(again[1], "outbox.outcome"))
	require.Equal(t, dead[0].SpanContext.SpanID(), again[1].SpanContext.SpanID())

	// One that died before it began has no span: the token is that of the attempt before.
	r.begin(job)
	r.exec(`update holds set changed_at = now() - interval '1 minute'`)
	r.exec(`update river_job set attempted_at = now() - interval '31 seconds' where id = $1`, job)
	require.NoError(t, r.Maintain(t.Context()))
	r.holds(`select rescues = 2 from holds`)
	require.Len(t, r.named("deliver note.kept"), 2)
}

// TestSpanOfAReplay is in the trace of the event, linked to what the operator asked.
func TestSpanOfAReplay(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	broken := true
	keeping(reg, func(context.Context) error {
		if broken {
			return outbox.Permanent(errors.New("broken"))
		}
		return nil
	})
	r := newTracedRig(t, reg)
	id := r.taken("k", 1)[0]
	r.settle()
	broken = false
	operator := r.request("operator", func(ctx context.Context) {
		_, err := r.op.Replay(ctx, r.letter(1).ID, nil, anna)
		require.NoError(t, err)
		_, err = r.op.Replay(ctx, r.letter(1).ID, nil, anna)
		require.Error(t, err)
	})
	r.settle()
	require.Equal(t, []string{"operator"}, r.tree(operator))
	replays := r.named("replay note.kept")
	require.Len(t, replays, 2)
	require.Equal(t, operator, replays[0].Links[0].SpanContext.TraceID())
	require.Equal(t, []string{"replaying", "refused"}, []string{attribute(replays[0], "outbox.outcome"), attribute(replays[1], "outbox.outcome")})
	require.NotContains(t, fmt.Sprintf("%+v", replays), "anna")
	require.Subset(t, r.tree(id), []string{"replay note.kept < append note.kept", "deliver note.kept < append note.kept"})
	require.Len(t, r.named("deliver note.kept"), 2)
	_, err := r.op.Replay(t.Context(), r.letter(1).ID, nil, anna) // untraced
	require.Error(t, err)
	require.Len(t, r.named("replay note.kept"), 2)
}
