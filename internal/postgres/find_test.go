package postgres

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func programs(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"initdb", "postgres", "pg_ctl"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFind(t *testing.T) {
	t.Parallel()
	none := func(string) (string, error) { return "", exec.ErrNotFound }
	root := t.TempDir()
	for _, version := range []string{"9.6", "15", "100"} {
		programs(t, filepath.Join(root, "installed", version, "bin"))
	}
	if err := os.MkdirAll(filepath.Join(root, "installed", "101", "bin"), 0o755); err != nil { // a client's leftovers
		t.Fatal(err)
	}
	installed := []string{root + "/installed/*/bin"}
	own := programs(t, filepath.Join(root, "own"))
	links := filepath.Join(root, "links")
	if err := os.Mkdir(links, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(own, "pg_ctl"), filepath.Join(links, "pg_ctl")); err != nil {
		t.Fatal(err)
	}
	inPath := func(name string) (string, error) {
		if name == "pg_ctl" {
			return filepath.Join(links, name), nil
		}
		return "", exec.ErrNotFound
	}

	for name, c := range map[string]struct {
		override string
		lookPath func(string) (string, error)
		want     string
	}{
		"newest that is whole": {"", none, filepath.Join(root, "installed", "100", "bin")},
		"link in PATH":         {"", inPath, own},
		"environment first":    {own, none, own},
	} {
		if got, err := find(c.override, c.lookPath, installed); err != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
		}
	}
	if _, err := find("", none, nil); !errors.Is(err, ErrNoBinaries) {
		t.Errorf("nowhere: %v", err)
	}
	if _, err := find(root, inPath, installed); !errors.Is(err, ErrNoBinaries) {
		t.Errorf("the environment is wrong: %v", err)
	}
}
