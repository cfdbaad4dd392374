//go:build !linux

package testdb

import "os"

func place() string { return os.TempDir() }
