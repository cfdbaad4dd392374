package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/pgoutbox/pgoutbox/internal/telemetry"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// logLine is a line of the engine's log about deliveries.
type logLine struct {
	Msg, Level, Consumer, Type, Outcome, Error string
	EventID                                    uuid.UUID `json:"event_id"`
	CorrelationID                              string    `json:"correlation_id"`
	CorrelationIDs                             []string  `json:"correlation_ids"`
	TraceID                                    string    `json:"trace_id"`
	Attempt, Applied, Duplicate                int
	Dead, Free                                 bool
}

// loggedRig is a rig that is traced, and logs as the service does.
func loggedRig(t *testing.T, reg *outbox.Registry, all bool) (*tracedRig, *logged) {
	t.Helper()
	said := &logged{}
	by := sdktrace.NewTracerProvider(sdktrace.WithIDGenerator(telemetry.IDs{}))
	r := newRigOn(t, testdb.Pool(t), reg, outbox.Config{
		TracerProvider: by, Logger: slog.New(telemetry.Logs(slog.NewJSONHandler(said, nil))), LogDeliveries: all,
	})
	r.exec(`create table if not exists broken (n int)`)
	return &tracedRig{rig: r, by: by}, said
}

func (l *logged) lines(t *testing.T, msg string) (found []logLine) {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		var said logLine
		require.NoError(t, json.Unmarshal([]byte(line), &said), line)
		if said.Msg == msg {
			found = append(found, said)
		}
	}
	return found
}

// TestOneLinePerDelivery: what failed, and every attempt at what has a job of its own, leaves one line each, and the others one for their
// batch or, if that is wanted, one each. All of them tell to which request they belong, and nobody's name.
func TestOneLinePerDelivery(t *testing.T) {
	t.Parallel()
	for name, all := range map[string]bool{"failures": false, "all": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const address, secret = "canary-ada@example.com", "canary correct horse"
			reg := outbox.NewRegistry()
			outbox.Handle(reg, "ledger", fallible, outbox.On("note.*"), outbox.MaxAttempts(3))
			outbox.HandleExternal(reg, "mail", func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
				if e.Data.N == 2 && e.Attempt == 1 {
					return nil, errors.New("the server does not answer")
				}
				return nil, nil
			}, outbox.On("note.*"))
			r, said := loggedRig(t, reg, all)
			r.exec(`insert into broken values (2), (3), (3)`) // 2 fails, 3 for good
			ids, traces := map[int]uuid.UUID{}, map[int]string{}
			take := func(n int) {
				id := r.request("request", func(ctx context.Context) {
					ctx = outbox.WithCorrelationID(ctx, fmt.Sprint("request-", n))
					require.NoError(t, outbox.InTx(ctx, r.pool, func(tx pgx.Tx) (err error) {
						ids[n], err = outbox.Append(ctx, tx, outbox.Event{
							Type: "note.taken", Key: fmt.Sprint(address, n), Data: map[string]any{"n": n, "password": secret},
						})
						return err
					}))
				})
				traces[n] = id.String()
			}
			for n := 1; n <= 5; n++ {
				take(n)
			}
			// The fourth is written twice. The call for the fifth dies with its process.
			again := `insert into outbox (id, type, key, data, correlation_id, traceparent) select id, type, key, data, correlation_id, traceparent from outbox where id = $1`
			r.exec(again, ids[4])
			r.relay()
			r.drainAll()
			stuck := one[int64](r.rig, `select id from river_job where args->>'consumer' = 'mail' and args->>'event_id' = $1`, ids[5].String())
			r.begin(stuck)
			r.exec(`update holds set attempts = 1 where job_id = $1`, stuck)
			r.hungFor(stuck, "31 seconds")
			require.NoError(t, r.Maintain(t.Context()))
			r.exec(`delete from broken where n = 2`)
			r.settle()
			r.agrees()

			want := map[string]int{
				"ledger 2 1 failed": 1, "ledger 2 2 applied": 1, "ledger 3 1 failed dead": 1,
				"mail 1 1 applied": 1, "mail 2 1 failed": 1, "mail 2 2 applied": 1, "mail 3 1 applied": 1, "mail 4 1 applied": 1,
				"mail 5 1 rescued free": 1, "mail 5 1 applied": 1,
			}
			if all {
				want["ledger 1 1 applied"], want["ledger 4 1 applied"], want["ledger 5 1 applied"] = 1, 1, 1
				want["ledger 4 1 duplicate"], want["mail 4 1 duplicate"] = 1, 1
			}
			numbers := map[uuid.UUID]int{}
			for n, id := range ids {
				numbers[id] = n
			}
			got := map[string]int{}
			for _, l := range said.lines(t, "delivery") {
				n := numbers[l.EventID]
				what := fmt.Sprint(l.Consumer, " ", n, " ", l.Attempt, " ", l.Outcome)
				if l.Dead {
					what += " dead"
				}
				if l.Free {
					what += " free"
				}
				got[what]++
				require.Equal(t, fmt.Sprint("request-", n), l.CorrelationID, what)
				require.Equal(t, traces[n], l.TraceID, what)
				require.Equal(t, "note.taken", l.Type, what)
				bad := l.Outcome == "failed" || l.Outcome == "rescued"
				require.Equal(t, bad, l.Level == "WARN", what)
				require.Equal(t, bad, l.Error != "", what)
			}
			require.Equal(t, want, got)

			applied, duplicate := 0, 0
			for _, l := range said.lines(t, "drain") {
				applied, duplicate = applied+l.Applied, duplicate+l.Duplicate
				require.NotEmpty(t, l.CorrelationID+strings.Join(l.CorrelationIDs, ""), "%+v", l)
				require.NotEmpty(t, l.TraceID)
				if l.CorrelationID != "" {
					require.Contains(t, fmt.Sprint(traces), l.TraceID, "what belongs to one request is in its trace")
				}
			}
			if all {
				require.Zero(t, applied+duplicate, "each has a line of its own")
			} else {
				require.Equal(t, 3, applied, "of the ledger: 1, 4 and 5")
				require.Positive(t, duplicate)
			}
			for _, planted := range []string{"canary", address, secret, "password"} {
				require.NotContains(t, said.String(), planted)
			}
		})
	}
}

// TestRolledBackFailuresAreToldOnce: what the log tells is committed.
func TestRolledBackFailuresAreToldOnce(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "c", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if err := brokenNow(ctx, tx, e); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `insert into deferred (n) values ($1)`, e.Data.N)
		return err
	}, outbox.On("note.*"), outbox.MaxAttempts(1), outbox.Unordered())
	r, said := loggedRig(t, reg, false)
	r.exec(`create table deferred (n int unique deferrable initially deferred)`)
	r.exec(`insert into deferred values (2)`) // the commit of a batch with the second event fails
	r.exec(`insert into broken values (1)`)
	r.append("k", 1, 2, 3)
	r.relay()
	r.drain("c", "k")
	r.holds(`select count(*) = 1 from discarded_jobs`)
	require.Equal(t, 1, strings.Count(said.String(), `"error":"1 is broken"`))
	require.Contains(t, said.String(), "batch rolled back", "there was something to tell twice")
	require.Len(t, said.lines(t, "delivery"), 2)
}

// TestRepairsTellOfTheirRequest: a hold that lost its job, and a row that the log refuses.
func TestRepairsTellOfTheirRequest(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "mail", func(context.Context, outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, nil
	}, outbox.On("note.*"))
	r, said := loggedRig(t, reg, false)
	trace := r.taken("k", 1)[0].String()
	r.relay()
	r.drainAll()
	r.exec(`truncate river_job cascade`) // no trigger sees it
	r.exec(`update holds set changed_at = now() - interval '1 minute'`)
	require.NoError(t, r.Maintain(t.Context()))
	lines := said.lines(t, "hold without a live job")
	require.Len(t, lines, 1, said.String())
	require.Equal(t, [2]string{trace, one[string](r.rig, `select correlation_id from events`)}, [2]string{lines[0].TraceID, lines[0].CorrelationID})
	r.settle()
	r.agrees()

	r.exec(`alter table events add constraint refused check ((data->>'n')::int <> 2)`)
	trace = r.taken("q", 2)[0].String()
	correlation := one[string](r.rig, `select correlation_id from outbox`)
	stop := r.startRelay()
	r.until(`select exists (select from quarantine)`)
	require.NoError(t, stop())
	lines = said.lines(t, "relay: row set aside in quarantine: the log refuses it")
	require.Len(t, lines, 1)
	require.Equal(t, [2]string{trace, correlation}, [2]string{lines[0].TraceID, lines[0].CorrelationID})
}
