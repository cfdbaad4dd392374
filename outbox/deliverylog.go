package outbox

import (
	"context"
	"log/slog"
	"time"
)

// What the log has of deliveries: a line "delivery" for each that failed, and for each attempt of one that has a job of its own, whatever
// became of it; for the others a line "drain" for their batch or, with Config.LogDeliveries, a line "delivery" each. Each is written when what
// it tells is committed, once, has the correlation id and, where that is traced, is within the event's trace.

// mostCorrelations is how many correlation ids the line of a batch has at most.
const mostCorrelations = 16

// logDelivery writes the line of a delivery; ctx is within its event's trace.
func (e *Engine) logDelivery(ctx context.Context, level slog.Level, consumer string, ev *stored, attempt int32, outcome string, more ...any) {
	e.log.Log(ctx, level, "delivery", append([]any{
		"consumer", consumer, "event_id", ev.ID, "type", ev.Type, "correlation_id", ev.CorrelationID, "attempt", attempt, "outcome", outcome,
	}, more...)...)
}

// ended says what became of the attempt, in a log line, in its span and to who counts.
func (d *attempt) ended(outcome string, cause error) {
	ctx := d.trace.in(context.Background())
	d.trace.end(outcome, cause)
	d.cfg.Observer.ObserveAttempt(d.c.Name, outcome, time.Since(d.began))
	d.logEnded(ctx, slog.LevelInfo, outcome, cause)
}

// logEnded is the line of an attempt. One that failed is a warning at least.
func (d *attempt) logEnded(ctx context.Context, level slog.Level, outcome string, cause error, more ...any) {
	more = append(more, "duration_ms", float64(time.Since(d.began).Microseconds())/1000)
	if cause != nil {
		level, more = max(level, slog.LevelWarn), append(more, "error", scrub(cause.Error()))
	}
	d.logDelivery(ctx, level, d.c.Name, d.event, d.n, outcome, more...)
}

// logDone says what a batch did that is committed.
func (b *batch) logDone(took time.Duration) {
	total := 0
	for _, n := range b.counts {
		total += n
	}
	if total == 0 {
		return
	}
	for i := range b.items[:b.done] {
		it := &b.items[i]
		switch {
		case it.outcome == failed:
			b.logDelivery(it.trace.in(context.Background()), slog.LevelWarn, b.c.Name, it.event, 1, it.outcome.String(),
				"dead", it.dead, "error", scrub(it.err.Error()))
		case it.outcome == suspect: // it was not run
			b.logDelivery(it.trace.in(context.Background()), slog.LevelWarn, b.c.Name, it.event, 0, it.outcome.String(),
				"dead", it.dead, "error", scrub(it.err.Error()))
		case b.cfg.LogDeliveries && (it.outcome == applied || it.outcome == duplicate):
			b.logDelivery(it.trace.in(context.Background()), slog.LevelInfo, b.c.Name, it.event, 1, it.outcome.String())
		}
	}
	b.logBatch(total, took)
}

// logBatch is the line of those of its events that have none of their own. Where all have, or none is new, it is for who looks closely.
func (b *batch) logBatch(total int, took time.Duration) {
	level := slog.LevelDebug
	if !b.cfg.LogDeliveries && b.counts[applied]+b.counts[duplicate] > 0 || !b.released && b.counts[parked] > 0 {
		level = slog.LevelInfo
	}
	ctx := context.Background()
	if !b.log.Enabled(ctx, level) {
		return
	}
	ids := b.correlations()
	args := []any{
		"consumer", b.c.Name, "lane", b.lane, "events", total, "applied", b.counts[applied], "duplicate", b.counts[duplicate],
		"failed", b.counts[failed] + b.counts[suspect], "external", b.counts[external], "waiting", b.counts[parked],
		"duration_ms", float64(took.Microseconds()) / 1000,
	}
	switch {
	case len(ids) == 1: // all of it belongs to one request
		ctx, args = b.items[0].trace.in(ctx), append(args, "correlation_id", ids[0])
	default:
		ctx, args = inSpan(ctx, b.span), append(args, "correlation_ids", ids)
	}
	b.log.Log(ctx, level, "drain", args...)
}

// correlations are the first different correlation ids of the events that the batch got to.
func (b *batch) correlations() (ids []string) {
	seen := map[string]bool{}
	for i := range b.items[:b.done] {
		if id := b.items[i].event.CorrelationID; !seen[id] {
			if seen[id], ids = true, append(ids, id); len(ids) == mostCorrelations {
				break
			}
		}
	}
	return ids
}
