package postgres

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
)

// EnvBinDir names the folder with PostgreSQL's programs; it wins over every other place.
const EnvBinDir = "PGOUTBOX_PG_BIN"

// ErrNoBinaries says that no installed PostgreSQL server was found.
var ErrNoBinaries = errors.New("no PostgreSQL server programs found")

// binDirPatterns are where distributions and installers put the server's programs, which mostly stay
// out of PATH because several major versions can be installed side by side.
var binDirPatterns = []string{
	"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
	"/usr/pgsql-*/bin",          // PGDG's RPMs
	"/usr/libexec/postgresql*",  // Alpine
	"/usr/local/pgsql*/bin",     // built from source
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/Library/PostgreSQL/*/bin",
	"/opt/local/lib/postgresql*/bin", // MacPorts
	"C:/Program Files/PostgreSQL/*/bin",
}

// Find returns the folder with initdb and postgres: that of [EnvBinDir] where it is set, else that of
// PATH's pg_ctl or postgres, else the newest version in the usual places. When there is none the error is
// an [ErrNoBinaries].
func Find() (binDir string, err error) {
	return find(os.Getenv(EnvBinDir), exec.LookPath, binDirPatterns)
}

func find(override string, lookPath func(string) (string, error), patterns []string) (string, error) {
	if override != "" {
		if !hasServer(override) {
			return "", fmt.Errorf("%w: %s=%s holds no initdb and postgres", ErrNoBinaries, EnvBinDir, override)
		}
		return override, nil
	}
	for _, name := range []string{"pg_ctl", "postgres"} {
		path, err := lookPath(name)
		if err != nil {
			continue
		}
		// PATH often has a link to one program only; its neighbours are where it points to.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		if dir := filepath.Dir(path); hasServer(dir) {
			return dir, nil
		}
	}
	var dirs []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("look for PostgreSQL in %s: %w", pattern, err)
		}
		dirs = append(dirs, found...)
	}
	slices.SortStableFunc(dirs, func(a, b string) int { return cmp.Compare(versionIn(b), versionIn(a)) })
	for _, dir := range dirs {
		if hasServer(dir) {
			return dir, nil
		}
	}
	return "", ErrNoBinaries
}

func hasServer(dir string) bool {
	suffix := ""
	if runtime.GOOS == "windows" {
		suffix = ".exe"
	}
	for _, name := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, name+suffix))
		if err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

var numberInPath = regexp.MustCompile(`\d+(\.\d+)?`)

// versionIn reads the version from a path such as /usr/lib/postgresql/17/bin; 0 where there is none.
func versionIn(path string) float64 {
	version, err := strconv.ParseFloat(numberInPath.FindString(path), 64)
	if err != nil {
		return 0
	}
	return version
}
