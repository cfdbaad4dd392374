package postgres

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// closedDir lies under a folder that only its owner may pass through, as root's home does.
func closedDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(dataDir(t)), "closed", ".data", "postgres")
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestClosedFolder(t *testing.T) {
	dir := closedDir(t)
	cfg := Config{DataDir: dir}
	s := start(t, cfg)
	query(t, s, `CREATE TABLE kept ()`)
	stop(t, s)
	elsewhere := s.dir
	if moved := isLink(dir); moved != (os.Geteuid() == 0) {
		t.Errorf("the data lies elsewhere: %v; only root has to", moved)
	}
	s = start(t, cfg)
	query(t, s, `SELECT '' FROM kept`)
	stop(t, s)
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, elsewhere} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if err := Remove(dir); err != nil {
		t.Errorf("nothing to remove is no error: %v", err)
	}
}

func TestClosedFolderAndNowhereElse(t *testing.T) {
	if os.Geteuid() != 0 {
		return // nothing is closed to the user that the server runs as
	}
	dir := closedDir(t)
	closed := filepath.Dir(filepath.Dir(dir))
	before := relocated
	t.Cleanup(func() { relocated = before })
	relocated = func() []string { return []string{closed} }
	_, err := Start(t.Context(), Config{DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), "cannot pass through "+closed) {
		t.Errorf("the folder is not named: %v", err)
	}
}

func TestLinkToNowhere(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	if err := os.Symlink(filepath.Join(filepath.Dir(dir), "gone"), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "which is gone") {
		t.Errorf("start: %v", err)
	}
	if err := Remove(dir); err != nil {
		t.Error(err)
	}
	if isLink(dir) {
		t.Error("the link is still there")
	}
}
