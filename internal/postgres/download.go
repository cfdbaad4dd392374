package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const (
	downloadVersion = embeddedpostgres.V18
	downloadTimeout = 5 * time.Minute
)

var errWaysOn = errors.New("PostgreSQL is needed: install the package postgresql (apt install postgresql), or run docker compose up, or set DATABASE_URL to a server of your own")

// binaries returns the folder asked for, else the installed one, else downloads.
func binaries(ctx context.Context, asked string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	dir, err := Find()
	if err == nil || !errors.Is(err, ErrNoBinaries) || os.Getenv(EnvBinDir) != "" {
		return dir, err
	}
	// What is downloaded lands in root's own home, where the server's user cannot go.
	if os.Geteuid() == 0 {
		return "", fmt.Errorf("%w: %w", err, errWaysOn)
	}
	cache, cacheErr := os.UserCacheDir()
	if cacheErr != nil {
		return "", fmt.Errorf("%w: %w", err, errWaysOn)
	}
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	dir, downloadErr := download(ctx, filepath.Join(cache, "pgoutbox"), "")
	if downloadErr != nil {
		return "", fmt.Errorf("%w, and they could not be downloaded (%w): %w", err, downloadErr, errWaysOn)
	}
	return dir, nil
}

// download fetches the server's programs once. The library only knows how to run a server, and one that would outlive
// a kill -9 of this process: so it runs one on throw-away data, and what is kept are the programs.
func download(ctx context.Context, cache, repository string) (binDir string, err error) {
	home := filepath.Join(cache, "postgresql-"+string(downloadVersion))
	binDir = filepath.Join(home, "bin")
	if hasServer(binDir) {
		return binDir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return "", err
	}
	port, err := freePort(ctx)
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(work))
	}
	cfg := embeddedpostgres.DefaultConfig().
		Version(downloadVersion).
		Port(uint32(port)).
		CachePath(filepath.Join(work, "archive")).
		BinariesPath(filepath.Join(work, "programs")).
		RuntimePath(filepath.Join(work, "runtime")).
		DataPath(filepath.Join(work, "data")).
		Logger(io.Discard)
	if repository != "" {
		cfg = cfg.BinaryRepositoryURL(repository)
	}
	result := make(chan error, 1)
	go func() {
		// The library takes no context: on a timeout this goes on behind the scenes and cleans up after itself.
		defer func() { _ = os.RemoveAll(work) }()
		server := embeddedpostgres.NewDatabase(cfg)
		if err := server.Start(); err != nil {
			result <- err
			return
		}
		if err := server.Stop(); err != nil {
			result <- err
			return
		}
		err := os.Rename(filepath.Join(work, "programs"), home)
		if err != nil && hasServer(binDir) {
			err = nil // another process was faster
		}
		result <- err
	}()
	select {
	case err := <-result:
		return binDir, err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
