//go:build !race

// What dies here is another process, of which the race detector sees nothing.

package main_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/faultkit"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// faulty is a database for a binary that can be told to die, and how it is started.
type faulty struct {
	t    *testing.T
	pool *pgxpool.Pool
	env  []string
	addr string // of the failpoints
}

func newFaulty(t *testing.T, env ...string) *faulty {
	t.Helper()
	url := testdb.New(t)
	f := &faulty{t: t, pool: testdb.PoolOn(t, url), addr: freeAddr(t)}
	f.env = append([]string{
		"DATABASE_URL=" + url, "SMTP_URL=smtp://127.0.0.1:1", "OUTBOX_PAYMENTS=sandbox", "OUTBOX_FAULTS_ADDR=" + f.addr,
	}, env...)
	_, err := f.pool.Exec(t.Context(), faultkit.Schema)
	require.NoError(t, err)
	return f
}

func (f *faulty) start() served {
	f.t.Helper()
	path, err := faultyBinary()
	require.NoError(f.t, err)
	return startServeOf(f.t, path, "all", f.env)
}

func (f *faulty) append(eventType, key, data string) (id string) {
	f.t.Helper()
	require.NoError(f.t, f.pool.QueryRow(f.t.Context(), `select event_id from faults.append($1, $2, $3)`, eventType, key, data).Scan(&id))
	return id
}

func (f *faulty) holds(query string, args ...any) func() bool {
	return func() bool {
		var ok bool
		require.NoError(f.t, f.pool.QueryRow(f.t.Context(), query, args...).Scan(&ok), query)
		return ok
	}
}

func (f *faulty) arm(point, do string) {
	f.t.Helper()
	a, err := call(f.t.Context(), "PUT", fmt.Sprintf("http://%s/arm?point=%s&nth=1&do=%s", f.addr, point, do), nil)
	require.NoError(f.t, err)
	require.Equal(f.t, 200, a.status, a.raw)
}

// killed waits for the process to die by kill -9.
func (p served) killed() {
	p.t.Helper()
	p.until("it is dead", func() bool {
		select {
		case <-p.ended:
			return true
		default:
			return false
		}
	})
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.Equal(p.t, syscall.SIGKILL, status.Signal(), p.tail())
}

// A process that dies before a batch's commit has done nothing, and the next one does it, once.
func TestFailpointKills(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	p := f.start()
	f.arm("drain.commit.before", "kill")
	id := f.append(faultkit.Noted, "a", `{}`)
	p.killed()
	require.True(t, f.holds(`select exists (select from events where id = $1) and not exists (select from faults.effects)`, id)())

	p = f.start()
	p.until("the effects are there", f.holds(`select count(*) >= 2 from faults.effects`))
	p.until("no lane is behind", f.holds(`select count(*) = 2 from processed_events where event_id = $1`, id))
	require.True(t, f.holds(`select count(*) = 2 and count(distinct consumer) = 2 and bool_and(n = 1) from faults.effects where event_id = $1`, id)())
	a, err := call(t.Context(), "GET", "http://"+f.addr+"/state", nil)
	require.NoError(t, err)
	var state struct {
		Goroutines int
		Passages   map[string]int
	}
	require.NoError(t, json.Unmarshal([]byte(a.raw), &state))
	require.Positive(t, state.Goroutines)
	require.GreaterOrEqual(t, state.Passages["drain.commit.before"], 2)
}

// A process that is stopped between two steps goes on from there, once it is continued.
func TestFailpointStops(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	p := f.start()
	f.arm("relay.claim.before", "stop")
	id := f.append(faultkit.Noted, "a", `{}`)
	p.until("it stands still", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		require.NoError(t, err)
		_, state, _ := strings.Cut(string(stat), ") ")
		return strings.HasPrefix(state, "T")
	})
	require.True(t, f.holds(`select exists (select from outbox where id = $1)`, id)())
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	p.until("it goes on", f.holds(`select count(*) = 2 from faults.effects where event_id = $1`, id))
}

// Each consumer does what it is for, and what makes trouble does so as often as its event says.
func TestFaultConsumers(t *testing.T) {
	t.Parallel()
	deeds := []string{"apply", "fail", "panic", "slow", "serialization", "deadlock", "division"}
	calls := make(chan string, 10)
	outside := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		calls <- r.Header.Get("Idempotency-Key")
	}))
	defer outside.Close()
	f := newFaulty(t, "OUTBOX_FAULTS_OUTSIDE_URL="+outside.URL, "OUTBOX_FAULTS_DIR="+t.TempDir(), "OUTBOX_FAULTS_NEXT=1")
	path, err := faultyBinary()
	require.NoError(t, err)
	out, err := runCommand(t, path, f.env, "migrate", "up")
	require.NoError(t, err, out)
	p := f.start()

	for _, deed := range deeds {
		f.append(faultkit.Trouble, deed, fmt.Sprintf(`{"do":%q,"times":1,"ms":1}`, deed))
	}
	f.append(faultkit.Trouble, "permanent", `{"do":"permanent","times":1}`)
	f.append(faultkit.Fanned, "fan", `{}`)
	f.append(faultkit.Renewed, "new", `{}`)
	sent := f.append(faultkit.Sent, "sent", `{}`)
	p.until("the troubled are applied", f.holds(`select count(distinct key) = $1 from faults.effects where consumer = 'trouble'`, len(deeds)))
	p.until("the others too", f.holds(`select count(*) = 1 + 3 * 3 + 1 + 1 from faults.effects where consumer <> 'trouble'`))
	require.Equal(t, sent, <-calls)
	p.until("one is dead", f.holds(`select count(*) = 1 and bool_and(key = 'permanent') from discarded_jobs`))

	id := f.append(faultkit.Trouble, "crash", `{"do":"crash","times":1}`)
	p.killed()
	p = f.start()
	p.until("it is applied at last", f.holds(`select count(*) = 1 from faults.effects where event_id = $1`, id))
	require.True(t, f.holds(`select count(*) = count(distinct (consumer, event_id)) from faults.effects`)(), "each once")
	require.True(t, f.holds(`select bool_and(s.key = e.key and s.n = e.n) from faults.state s join faults.effects e using (event_id)`)())
}

// A build that knows of one more migration wants it; the others go on beside it.
func TestNextBuild(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	path, err := faultyBinary()
	require.NoError(t, err)
	next := append(slices.Clone(f.env), "OUTBOX_FAULTS_NEXT=1", "OUTBOX_FAULTS_ADDR=")
	old := f.start()
	out, err := runCommand(t, path, next, "serve")
	require.Error(t, err)
	require.Contains(t, out, "outbox migrate up")
	out, err = runCommand(t, path, next, "migrate", "up")
	require.NoError(t, err, out)

	require.Equal(t, 200, old.get(old.admin+"/readyz"))
	id := f.append(faultkit.Noted, "a", `{}`)
	old.until("the old build goes on", f.holds(`select count(*) = 2 from faults.effects where event_id = $1`, id))
	out, err = runCommand(t, path, next, "migrate", "down")
	require.NoError(t, err, out)
	require.True(t, f.holds(`select to_regclass('next_notes') is null`)())
}

// The control is a consumer without dedupe: when its process dies before the commit, its effect is there twice.
func TestFaultControl(t *testing.T) {
	t.Parallel()
	f := newFaulty(t, "OUTBOX_FAULTS_CONTROL="+faultkit.NoDedupe)
	p := f.start()
	_, err := f.pool.Exec(t.Context(), `update consumers set paused_at = now() where name <> $1`, faultkit.Ledger)
	require.NoError(t, err)
	f.arm("drain.commit.before", "kill")
	f.append(faultkit.Noted, "a", `{}`)
	p.killed()
	p = f.start()
	p.until("it is processed", f.holds(`select exists (select from processed_events where consumer = $1)`, faultkit.Ledger))
	require.True(t, f.holds(`select count(*) = 2 and bool_and(consumer = $1) from faults.effects`, faultkit.Ledger)())
}

// freeAddr is an address that was free a moment ago, for a service that must come back at the same place.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	return addr
}

// A replay of many letters goes on where its process died, without skipping a letter or replaying one twice, and whoever waits for it on the
// command line is told how it ended.
func TestReplayOfManySurvivesKills(t *testing.T) {
	t.Parallel()
	const letters = 12
	f := newFaulty(t)
	_, err := f.pool.Exec(t.Context(), `insert into faults.switches (name, value) values ('poison', 'on')`)
	require.NoError(t, err)
	p := f.start()
	for i := range letters {
		f.append(faultkit.Trouble, fmt.Sprint("k", i), `{"do":"switched"}`)
	}
	p.until("all are dead letters", f.holds(`select count(*) = $1 from discarded_jobs where state = 'dead'`, letters))
	_, err = f.pool.Exec(t.Context(), `delete from faults.switches`)
	require.NoError(t, err)
	f.arm("operation.step.before", "kill")

	type end struct {
		code      int
		out, said string
	}
	ended := make(chan end, 1)
	go func() {
		code, out, said := command(t, f.pool.Config().ConnString(), "dlq", "replay", "--consumer=trouble", "--reason=it is repaired", "--actor=anna", "--yes", "--json", "--rate=1000")
		ended <- end{code, out, said}
	}()
	p.killed()
	require.True(t, f.holds(`select count(*) = $1 from discarded_jobs where state = 'dead' and replays = 0`, letters)())
	for range 2 {
		p = f.start()
		f.arm("operation.step.after", "kill")
		p.killed()
	}
	p = f.start()
	p.until("it has ended", f.holds(`select ended_at is not null from operations`))
	e := <-ended
	require.Equal(t, 0, e.code, e.said)
	var op outbox.OperationDetail
	require.NoError(t, json.Unmarshal([]byte(e.out), &op))
	require.Equal(t, [3]any{"done", int64(letters), int64(letters)}, [3]any{op.State, op.Total, op.Succeeded})
	require.True(t, f.holds(`select count(*) = $1 and bool_and(state = 'replayed' and replays = 1) from discarded_jobs`, letters)())
	require.True(t, f.holds(`select count(*) = $1 and count(distinct event_id) = $1 from faults.effects where consumer = 'trouble'`, letters)())
	require.True(t, f.holds(`select count(*) = $1 and count(distinct target) = $1 from audit where action = 'replay'`, letters)())
}
