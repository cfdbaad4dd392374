// Package quiet keeps what libraries note of their own doings out of a service's log.
package quiet

import (
	"context"
	"log/slog"
)

// Warnings passes on what is said from warnings up: notes of every start, batch and statistic are noise to whoever runs a service.
func Warnings(h slog.Handler) slog.Handler { return warnings{h} }

type warnings struct{ slog.Handler }

func (h warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

func (h warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{h.Handler.WithAttrs(attrs)}
}

func (h warnings) WithGroup(name string) slog.Handler { return warnings{h.Handler.WithGroup(name)} }
