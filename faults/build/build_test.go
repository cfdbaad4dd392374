package build

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// program prints the time in the ways in which programs read it, and how long its sleep was by the monotonic clock.
const program = `package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"
)

func main() {
	began := time.Now()
	timer := time.NewTimer(20 * time.Millisecond)
	<-timer.C
	ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(time.Millisecond))
	defer cancel()
	<-ctx.Done()
	fmt.Println(began.Unix())
	fmt.Println(time.Since(began).Milliseconds())
	fmt.Println(time.Now().Round(0).Sub(began.Round(0)).Milliseconds())
	slog.New(slog.NewTextHandler(os.Stdout, nil)).Info("logged")
}
`

const (
	shifted   = 100_000_000 * time.Second // three years: no test takes that long
	tolerance = time.Hour
)

func buildProgram(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module program\n\ngo 1.26\n", "main.go": program} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	path, err := compile(t.Context(), dir, ".", filepath.Join(dir, "program"), nil)
	require.NoError(t, err)
	return path
}

func run(t *testing.T, path, clock string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), EnvClock+"="+clock, "TZ=UTC", "DATABASE_URL=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestClock(t *testing.T) {
	t.Parallel()
	path := buildProgram(t)
	for _, seconds := range []time.Duration{0, shifted / time.Second, -shifted / time.Second} {
		clock := ""
		if seconds != 0 {
			clock = strconv.Itoa(int(seconds))
		}
		out, err := run(t, path, clock)
		require.NoError(t, err, out)
		lines := strings.Split(out, "\n")
		want := time.Now().Add(seconds * time.Second)
		unix, err := strconv.ParseInt(lines[0], 10, 64)
		require.NoError(t, err)
		require.WithinDuration(t, want, time.Unix(unix, 0), tolerance)
		for _, span := range lines[1:3] {
			took, err := strconv.Atoi(span)
			require.NoError(t, err)
			require.Less(t, time.Duration(took)*time.Millisecond, tolerance, "spans stay right")
			require.GreaterOrEqual(t, took, 20)
		}
		_, logged, _ := strings.Cut(lines[3], "time=")
		logged, _, _ = strings.Cut(logged, " ")
		at, err := time.Parse(time.RFC3339Nano, logged)
		require.NoError(t, err, lines[3])
		require.WithinDuration(t, want, at, tolerance)
	}
	out, err := run(t, path, "soon")
	require.Error(t, err)
	require.Contains(t, out, EnvClock)
}

func TestServiceIsBuilt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, err := Service(t.Context(), dir)
	require.NoError(t, err)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "the binary alone is left")
	out, err := run(t, path, "", "--version")
	require.NoError(t, err, out)
	out, err = run(t, path, "soon", "--version")
	require.Error(t, err)
	require.Contains(t, out, EnvClock, "the binary has the clock")
}

// An edit that no longer fits the toolchain must be noticed, and not leave a clock that is right.
func TestShiftRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	root, err := output(t.Context(), "", "go", "env", "GOROOT")
	require.NoError(t, err)
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(root), "src", "time", "time.go"))
	require.NoError(t, err)
	_, err = shift(source)
	require.NoError(t, err)
	for _, change := range [][2]string{
		{"func Now() Time {", "func Now() (t Time) {"},
		{"sec, nsec, mono := runtimeNow()", "sec, nsec, mono := readClock()"},
		{"\t\"math/bits\"\n", ""},
		{"func Since(", "func other() { runtimeNow() }\n\nfunc Since("},
	} {
		changed := strings.Replace(string(source), change[0], change[1], 1)
		require.NotEqual(t, string(source), changed)
		_, err := shift([]byte(changed))
		require.ErrorIs(t, err, errClock)
	}
}
