package workers

import (
	"context"
	"time"
)

// operate takes operations further, step by step, until the workers are told to stop. It is no River job: what keeps such a job alive would
// be as much again, where a step is a transaction of its own and any process may make the next one.
func (w *Workers) operate(ctx context.Context) {
	for {
		wait, err := w.engine.Operate(ctx)
		if err != nil {
			if ctx.Err() == nil {
				w.log.Error("operations", "error", err)
			}
			wait = max(wait, time.Second)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-w.stop:
		case <-timer.C:
			continue
		}
		timer.Stop()
		return
	}
}
