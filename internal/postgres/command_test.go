package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is run beside a server is run as its user, where its data is, and without the caller's settings.
func TestCommand(t *testing.T) {
	dir := dataDir(t)
	s := start(t, Config{DataDir: dir})
	t.Setenv("PGPORT", "1")
	cmd, err := Command(t.Context(), dir, "/bin/sh", "-c", `id -u; pwd; echo "$PGPORT."; stat -c %u cluster`)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	if lines[0] != lines[3] {
		t.Errorf("it ran as user %s, and the cluster is of %s", lines[0], lines[3])
	}
	if lines[1] != s.dir || cmd.Dir != s.dir {
		t.Errorf("it ran in %s, and Dir is %s, not %s", lines[1], cmd.Dir, s.dir)
	}
	if lines[2] != "." {
		t.Errorf("the caller's PGPORT reached it: %s", lines[2])
	}

	cmd, err = Command(t.Context(), dir, "postgres", "--version")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(cmd.Path); err != nil || filepath.Base(cmd.Path) != "postgres" || info.IsDir() {
		t.Errorf("the program is %s: %v", cmd.Path, err)
	}
}
