package main_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// openTerminal is a terminal of so many columns: what a program writes to its far end comes out of the near one.
func openTerminal(t *testing.T, columns uint16) (near, far *os.File) {
	t.Helper()
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = near.Close() })
	set := func(request uintptr, value unsafe.Pointer) {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, near.Fd(), request, uintptr(value))
		require.Zero(t, errno)
	}
	var locked, number int32
	set(syscall.TIOCSPTLCK, unsafe.Pointer(&locked))
	set(syscall.TIOCGPTN, unsafe.Pointer(&number))
	size := struct{ rows, columns, x, y uint16 }{rows: 40, columns: columns}
	set(syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	far, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	return near, far
}

// onTerminal runs the real binary on a database, with both of its outputs on a terminal, and returns what that shows.
func onTerminal(t *testing.T, columns uint16, url string, args ...string) (code int, shown string) {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	near, far := openTerminal(t, columns)
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+url)
	cmd.Stdout, cmd.Stderr = far, far
	require.NoError(t, cmd.Start())
	require.NoError(t, far.Close())
	all, _ := io.ReadAll(near) // it ends with an error, when nobody has the far end any more
	if err := cmd.Wait(); err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return cmd.ProcessState.ExitCode(), strings.ReplaceAll(string(all), "\r\n", "\n")
}

// On a terminal tables fit it, and nothing of what they hold is obeyed; a pipe gets all of it.
func TestTablesFitTheTerminal(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	url := pool.Config().ConnString()
	plantLetters(t, pool, 1)
	_, err := pool.Exec(t.Context(), `update discarded_jobs set key = repeat('k', 50), error = $1`, strings.Repeat("x", 300)+"\x1b[2J\u009b1m end")
	require.NoError(t, err)
	code, shown := onTerminal(t, 100, url, "dlq")
	require.Equal(t, 0, code, shown)
	lines := strings.Split(strings.TrimSpace(shown), "\n")
	require.Len(t, lines, 2)
	require.Regexp(t, `^1 .* billing .* k{5,}…  3 +dead +x+…$`, lines[1])
	for _, line := range lines {
		require.LessOrEqual(t, len([]rune(line)), 100)
	}
	_, piped, _ := command(t, url, "dlq")
	require.Contains(t, piped, strings.Repeat("k", 50))
	require.Contains(t, piped, "1m end")
	for _, said := range []string{shown, piped} {
		require.NotContains(t, said, "\x1b")
		require.NotContains(t, said, "\u009b")
	}
	_, document := onTerminal(t, 100, url, "dlq", "show", "1", "--json")
	require.Contains(t, document, `\u009b1m end`)
	require.NotContains(t, document, "\u009b")
}

// plantPast plants events that a consumer has come past, as a backfill wants them: no key is held.
func plantPast(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	plantLetters(t, pool, 3)
	for _, sql := range []string{
		`update relay_state set head = 3`,
		`insert into consumer_subscriptions (consumer, pattern) values ('billing', 'user.signed_up')`,
		`delete from holds`,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
}

// How far it is, a bar tells to whoever looks at a terminal, and to nobody else.
func TestProgressIsForTerminals(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	url := pool.Config().ConnString()
	plantPast(t, pool)
	code, out, said := command(t, url, "consumers", "backfill", "billing", "--from=beginning", "--reason=a test", "--detach")
	require.Equal(t, 0, code, said)
	require.Contains(t, out, "backfill 1 of billing: running")
	code, out, said = command(t, url, "backfills", "stop", "1", "--json")
	require.Equal(t, 0, code, said)
	require.Contains(t, out, `"state":"stopped"`)
	for _, args := range [][]string{{"check"}, {"backfills", "show", "1", "--follow"}} {
		_, shown := onTerminal(t, 80, url, args...)
		require.Contains(t, shown, "\r\x1b[K[===", args)
		_, shown = onTerminal(t, 80, url, append(args, "--json")...)
		require.NotContains(t, shown, "\x1b", args)
		_, out, said := command(t, url, args...)
		require.NotContains(t, out+said, "[=", args)
	}
}

// Whoever stops looking is told that it goes on, and how to look again.
func TestInterruptedWaitSaysSo(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	plantPast(t, pool)
	path, err := binary()
	require.NoError(t, err)
	near, far := openTerminal(t, 80)
	cmd := exec.CommandContext(t.Context(), path, "consumers", "backfill", "billing", "--from=beginning", "--reason=a test")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+pool.Config().ConnString())
	cmd.Stderr = far
	require.NoError(t, cmd.Start())
	require.NoError(t, far.Close())
	shown, some := "", make([]byte, 1000)
	for !strings.Contains(shown, "[ ") {
		n, err := near.Read(some)
		require.NoError(t, err, shown)
		shown += string(some[:n])
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	rest, _ := io.ReadAll(near) // it ends with an error, as above
	require.Error(t, cmd.Wait())
	require.Equal(t, 1, cmd.ProcessState.ExitCode())
	require.Contains(t, string(rest), "backfill 1 goes on without anybody looking: outbox backfills show 1")
}
