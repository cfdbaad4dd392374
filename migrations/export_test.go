package migrations

import (
	"context"
	"io/fs"
)

// The same with other files.
func UpFS(ctx context.Context, fsys fs.FS, databaseURL string, opts Options) error {
	return newRunner(fsys, opts).up(ctx, databaseURL)
}

func DownFS(ctx context.Context, fsys fs.FS, databaseURL string, opts Options) error {
	return newRunner(fsys, opts).down(ctx, databaseURL)
}

func FingerprintFS(fsys fs.FS) (string, error) { return fingerprint(fsys) }

const LockKey = lockKey
