//go:build unix

package workers_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

// zombieURL makes the test binary the process that is stopped.
const zombieURL = "PGOUTBOX_TEST_ZOMBIE_URL"

// zombieRegistry has a consumer that calls the outside and one that works in a drain. first is called at their first event.
func zombieRegistry(first func(consumer string)) *outbox.Registry {
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "mail", func(_ context.Context, e outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		if e.Data.N == 0 {
			first("mail")
		}
		return func(ctx context.Context, tx pgx.Tx) error { return effect(ctx, tx, e) }, nil
	}, outbox.On("note.*"), outbox.Timeout(500*time.Millisecond))
	outbox.Handle(reg, "ledger", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		if e.Data.N == 0 {
			first("ledger")
		}
		return effect(ctx, tx, e)
	}, outbox.On("note.*"))
	return reg
}

// TestZombieProcess is no test but the process that TestStoppedProcess stops: its handlers hang at their first event until a
// line comes in, and it ends with its input.
func TestZombieProcess(t *testing.T) {
	url := os.Getenv(zombieURL)
	if url == "" {
		return
	}
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	defer pool.Close()
	goOn := make(chan struct{})
	w, err := workers.New(pool, zombieRegistry(func(consumer string) {
		fmt.Println("hangs", consumer)
		<-goOn
	}), workers.Config{})
	require.NoError(t, err)
	require.NoError(t, w.Start(t.Context()))
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n')
	close(goOn)
	fmt.Println("goes on")
	_, _ = io.Copy(io.Discard, in)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_ = w.Stop(ctx) // its connections are gone
}

// TestStoppedProcess stops a process (SIGSTOP) while it relays, drains and delivers, until others have taken all that over,
// and lets it go on: every effect has happened once, in order, and nobody is in anybody's way.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	effects(t, pool)
	zombie := exec.Command(os.Args[0], "-test.run=^TestZombieProcess$", "-test.count=1")
	zombie.Env = append(os.Environ(), zombieURL+"="+pool.Config().ConnString())
	in, err := zombie.StdinPipe()
	require.NoError(t, err)
	out, err := zombie.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, zombie.Start())
	t.Cleanup(func() {
		_ = zombie.Process.Signal(syscall.SIGCONT)
		_ = in.Close()
		_ = zombie.Wait()
	})
	lines := bufio.NewScanner(out)
	says := func(want ...string) {
		for seen := map[string]bool{}; len(seen) < len(want); {
			require.True(t, lines.Scan(), "the process ended: %v", lines.Err())
			for _, w := range want {
				if lines.Text() == w {
					seen[w] = true
				}
			}
		}
	}
	next := 0
	produce := func(n int) {
		for range n {
			_, err := pool.Exec(t.Context(), `select outbox_append('note.taken', 'k', jsonb_build_object('n', $1::int))`, next)
			require.NoError(t, err)
			next++
		}
	}
	eventually(t, pool, `select count(*) = 2 from consumers`)
	produce(3)
	says("hangs mail", "hangs ledger")
	require.NoError(t, zombie.Process.Signal(syscall.SIGSTOP))

	start(t, pool, zombieRegistry(func(string) {}), workers.Config{})
	produce(3)
	eventually(t, pool, `select count(*) = 12 from effects`)
	eventually(t, pool, `select not exists (select from holds)`)
	agrees(t, pool)

	_, err = fmt.Fprintln(in, "go on")
	require.NoError(t, err)
	require.NoError(t, zombie.Process.Signal(syscall.SIGCONT))
	says("goes on")
	produce(20)
	eventually(t, pool, `select count(*) >= 52 from effects`)
	eventually(t, pool, `select not exists (select from holds)`)
	agrees(t, pool)
	var right bool
	require.NoError(t, pool.QueryRow(t.Context(), `select bool_and(ns = array(select generate_series(0, 25)))
		from (select array_agg(n order by i) as ns from effects group by consumer) e`).Scan(&right))
	require.True(t, right, "every effect once, in order")
}
