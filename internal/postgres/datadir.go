package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func clusterDir(dir string) string   { return filepath.Join(dir, "cluster") }
func passwordFile(dir string) string { return filepath.Join(dir, "password") }
func startedFile(dir string) string  { return filepath.Join(dir, "started.pid") }

// relocated is where the contents go when the directory asked for cannot be reached. A variable for the tests.
var relocated = func() []string { return []string{"/var/lib/pgoutbox", os.TempDir()} }

// prepareDir makes the directory and returns where its contents really are, without links, with the account that can use it.
func prepareDir(dataDir string) (dir string, acct account, err error) {
	if dataDir == "" {
		return "", account{}, errors.New("no data directory is given")
	}
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return "", account{}, fmt.Errorf("data directory: %w", err)
	}
	dir, err = makeDir(abs)
	if err != nil {
		return "", account{}, err
	}
	acct, err = chooseAccount(clusterDir(dir))
	if err != nil {
		return "", account{}, err
	}
	blocked, err := acct.unreachable(dir)
	if err != nil || blocked == "" {
		return dir, acct, err
	}
	if dir, err = relocate(abs, dir, acct); err != nil {
		return "", account{}, fmt.Errorf("PostgreSQL would run as %s, who cannot pass through %s: %w", acct.name, blocked, err)
	}
	return dir, acct, nil
}

// makeDir creates the directory where needed and resolves links.
func makeDir(abs string) (string, error) {
	target, err := os.Readlink(abs)
	if err == nil {
		if _, err := os.Stat(abs); errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("the data of %s was kept in %s, which is gone: remove the link to begin anew", abs, target)
		}
	} else {
		mode := fs.FileMode(0o700)
		if os.Geteuid() == 0 {
			mode = 0o711 // for the other user to pass through; what is inside is closed
		}
		if err := os.MkdirAll(filepath.Dir(abs), 0o755); err != nil {
			return "", fmt.Errorf("create data directory: %w", err)
		}
		if err := os.Mkdir(abs, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("create data directory: %w", err)
		}
	}
	dir, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	return dir, nil
}

// relocate puts an empty directory elsewhere and leaves a link. The name is drawn and the link alone knows it, so that
// neither a project that moves nor one that comes to lie where another was can take a stranger's data.
func relocate(abs, dir string, acct account) (string, error) {
	if entries, err := os.ReadDir(dir); err != nil {
		return "", err
	} else if len(entries) > 0 || dir != abs && isLink(abs) {
		return "", errors.New("and there is data in it already: open that folder to others (chmod o+x), or remove the data")
	}
	var failed error
	for _, base := range relocated() {
		elsewhere, err := makeElsewhere(base, acct)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if err := os.Remove(abs); err != nil {
			return "", errors.Join(err, os.Remove(elsewhere))
		}
		if err := os.Symlink(elsewhere, abs); err != nil {
			return "", errors.Join(err, os.Remove(elsewhere))
		}
		return elsewhere, nil
	}
	return "", failed
}

func makeElsewhere(base string, acct account) (string, error) {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	base, err := filepath.EvalSymlinks(base)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(base, "pgoutbox-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	blocked, err := acct.unreachable(dir)
	if err == nil && blocked != "" {
		err = fmt.Errorf("nor through %s", blocked)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// Remove deletes the data directory, and where its contents are kept elsewhere them too. It refuses
// with [ErrInUse] while a server runs on it. A directory that does not exist is no error.
func Remove(dataDir string) error {
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	dir, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) {
		// A link whose target is gone is removed too.
		if err := os.Remove(abs); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove data directory: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove data directory: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return fmt.Errorf("remove data directory %s: %w", dataDir, err)
	}
	defer unlockFile(lock)
	if pid := postmasterPID(clusterDir(dir)); pid != 0 && servesDir(pid, clusterDir(dir)) {
		return fmt.Errorf("remove data directory %s: %w (PostgreSQL, process %d)", dataDir, ErrInUse, pid)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove data directory: %w", err)
	}
	if isLink(abs) {
		if err := os.Remove(abs); err != nil {
			return fmt.Errorf("remove data directory: %w", err)
		}
	}
	return nil
}
