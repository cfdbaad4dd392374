//go:build !faults

package failpoint

import (
	"log/slog"
	"time"
)

// At marks that the code has come to a point. Here it is nothing, and costs nothing.
func At(Point) {}

// Serve does nothing here; in a build with the tag faults it listens.
func Serve(*slog.Logger) (stop func(), err error) { return func() {}, nil }

// Every is the interval.
func Every(interval time.Duration) time.Duration { return interval }
