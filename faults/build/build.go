// Package build builds the service's binary for the fault harness: with the tag faults, and with a wall clock that can be wrong.
//
// Go reads the clock without a system call, from memory that it shares with the kernel, so that nothing outside of a process
// (libfaketime, a time namespace, which has no wall clock) can make it wrong for that process alone. What is built here
// has a copy of package time in which [EnvClock] shifts the wall clock. It is the same program in all else, and without the
// variable it is right.
package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// EnvClock is the environment variable by which a program built here is shifted: whole seconds, negative ones for a clock that is
// behind. What is not a number ends the program at once. The monotonic clock, and so every timer and measured span, stays right.
const EnvClock = "OUTBOX_FAULTS_CLOCK"

const (
	module = "github.com/pgoutbox/pgoutbox"
	tag    = "faults"
)

// Service builds ./cmd/outbox of the module that the working directory's module is, or requires, into dir and returns the binary's path. The tag
// faults is always set.
func Service(ctx context.Context, dir string, tags ...string) (path string, err error) {
	out, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return "", fmt.Errorf("find the service's code: %w", err)
	}
	return compile(ctx, strings.TrimSpace(out), "./cmd/outbox", filepath.Join(dir, "outbox"), append([]string{tag}, tags...))
}

// compile builds a package of the module in root, with the clock.
func compile(ctx context.Context, root, pkg, path string, tags []string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	// Beside the binary, and not in a folder that two builds share.
	work, err := os.MkdirTemp(filepath.Dir(path), "overlay-")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	overlay, err := writeOverlay(ctx, work)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	args := []string{"build", "-overlay", overlay, "-tags", strings.Join(tags, ","), "-o", path, pkg}
	if _, err := output(ctx, root, "go", args...); err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	return path, nil
}

// writeOverlay has the toolchain read the shifted copy of its own time.go.
func writeOverlay(ctx context.Context, dir string) (path string, err error) {
	root, err := output(ctx, "", "go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	original := filepath.Join(strings.TrimSpace(root), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", fmt.Errorf("the toolchain's package time: %w", err)
	}
	shifted, err := shift(source)
	if err != nil {
		return "", fmt.Errorf("%s: %w", original, err)
	}
	copied := filepath.Join(dir, "time.go")
	if err := os.WriteFile(copied, shifted, 0o600); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: copied}})
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, overlay, 0o600)
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return string(out), nil
}
