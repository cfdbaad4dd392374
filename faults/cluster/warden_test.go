package cluster

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const envHarness = "PGOUTBOX_CLUSTER_TEST_HARNESS"

// TestMain runs the tests, or is a process of its own that has everything and is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(envHarness); dir != "" {
		if err := harness(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("ready")
		select {}
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

func harness(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := NewDisk(ctx, filepath.Join(dir, "disk"), 96<<20)
	if err != nil {
		return err
	}
	hung, err := Start(ctx, filepath.Join(dir, "hung"), nil, WALOn(d.Dir()))
	if err != nil {
		return err
	}
	p, err := StartPooler(ctx, filepath.Join(dir, "pooler"), hung.URL("postgres"), nil)
	if err != nil {
		return err
	}
	if _, err := Start(ctx, filepath.Join(dir, "busy"), nil); err != nil {
		return err
	}
	if err := p.Hang(); err != nil {
		return err
	}
	return hung.Hang()
}

// Nothing outlives a process that was killed with -9, not even what hangs.
func TestKilledHarness(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	t.Cleanup(func() { require.NoError(t, removeAll(dir)) })
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envHarness+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	said, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", said)
	require.NotEmpty(t, workingIn(dir))
	require.True(t, mounted(dir))

	require.NoError(t, cmd.Process.Kill())
	eventually(t, "all processes are gone", func() bool { return len(workingIn(dir)) == 0 })
	eventually(t, "nothing is mounted", func() bool { return !mounted(dir) })
}

// workingIn are all processes that work below the folder, whatever they run.
func workingIn(dir string) (found []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		if at, err := os.Readlink(link); err == nil && strings.HasPrefix(at, dir+"/") {
			found = append(found, link)
		}
	}
	return found
}

func mounted(dir string) bool {
	table, _ := os.ReadFile("/proc/self/mounts")
	return strings.Contains(string(table), " "+dir+"/")
}

// removeAll empties the folder.
func removeAll(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return err
}
