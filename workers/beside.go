package workers

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	// followEvery is how often it is asked which consumers there are beside the registry's, and followTime how long the answer may take.
	followEvery = 2 * time.Second
	followTime  = 5 * time.Second
)

// beside asks for the consumers that are not in the registry. One goroutine at a time uses it.
type beside struct {
	ask func(ctx context.Context) (*outbox.Registry, error)
	log *slog.Logger

	names   []string        // as they were answered last
	failed  bool            // the last time
	refused map[string]bool // names of which that was logged
}

// look asks, has the engine run what is answered, and reports whether these are others than before.
func (b *beside) look(ctx context.Context, engine *outbox.Engine) (changed bool) {
	reg, err := b.answer(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return false
	case err != nil:
		if !b.failed {
			b.log.Error("consumers beside the program's own cannot be asked for; those there are stay as they are", "error", err)
		}
		b.failed = true
		return false
	case b.failed:
		b.failed = false
		b.log.Info("consumers beside the program's own are known again")
	}
	for _, name := range engine.SetConsumers(reg) {
		if !b.refused[name] {
			b.refused[name] = true
			b.log.Error("consumer refused: the program's own code has one of that name", "consumer", name)
		}
	}
	var names []string
	for _, c := range reg.Consumers() {
		names = append(names, fmt.Sprint(c.Name, " ", c.Concurrency))
	}
	changed = !slices.Equal(names, b.names)
	b.names = names
	return changed
}

func (b *beside) answer(ctx context.Context) (reg *outbox.Registry, err error) {
	ctx, cancel := context.WithTimeout(ctx, followTime)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			reg, err = nil, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if reg, err = b.ask(ctx); err == nil && reg == nil {
		reg = outbox.NewRegistry()
	}
	return reg, err
}

// follow takes on the consumers that appear, and gives up those that are gone, until the workers stop.
func (w *Workers) follow(ctx context.Context) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for changed := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-w.stop:
			return
		case <-tick.C:
		}
		if changed = w.beside.look(ctx, w.engine) || changed; !changed && !w.roster.unsettled() {
			continue
		}
		uncovered, err := w.engine.Uncovered(ctx)
		if err == nil {
			err = w.cover(ctx, uncovered)
		}
		if err != nil {
			if ctx.Err() == nil {
				w.log.Error("take on consumers", "error", err)
			}
			continue
		}
		changed = false
	}
}
