package workers

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	// drainSlice is how long one drain job keeps its place among a consumer's workers: then other lanes have their turn.
	drainSlice = time.Second
	// mostWait bounds the wait for a delivery's time, whatever the clock of the process that set it said.
	mostWait = 100 * time.Millisecond
	// poolKept is how many connections of the pool drains leave to the relay, to River and to requests, which would wait behind
	// all drains otherwise: after an outage there are hundreds. Of a pool of fewer than nine, it is a third.
	poolKept = 3
	// drainTime is how long a drain job may take, with its wait for room. drainLater, which is longer, is within what time one begins that
	// finds none: until it has begun, nobody takes it for dead, and it has not to say anything again, for which there may be no connection.
	drainTime  = 5 * time.Minute
	drainLater = 2 * drainTime
	// sayTime bounds the wait for a connection to say it.
	sayTime = 5 * time.Second
	// turnWait is how long a drain of a consumer waits at most while another one runs. When there is not much to do, the one finds more
	// for having waited, and a batch costs far more than an event in it; when the other one is slow, it must not keep the rest.
	turnWait = 50 * time.Millisecond
	// wayWait is how long it waits at most for that where drains give way to those who write, and wayPause how long a drain that has the turn
	// pauses at most between two batches: as long as each took, so that half of the time nobody drains.
	wayWait  = 10 * time.Second
	wayPause = 250 * time.Millisecond
	// handOver is how soon a relay that was told to stop may be started by another process.
	handOver = 50 * time.Millisecond
)

type relayWorker struct {
	river.WorkerDefaults[RelayArgs]
	engine *outbox.Engine
	stop   <-chan struct{}
}

// Timeout is none: River's rescuer leaves such a job alone, and the engine's own looks after it.
func (*relayWorker) Timeout(*river.Job[RelayArgs]) time.Duration { return -1 }

func (w *relayWorker) Work(ctx context.Context, _ *river.Job[RelayArgs]) error {
	if err := w.engine.Relay(ctx, w.stop); err != nil {
		return err
	}
	select {
	case <-w.stop:
		return river.JobSnooze(handOver)
	default:
		return nil
	}
}

type drainWorker struct {
	river.WorkerDefaults[DrainArgs]
	engine *outbox.Engine
	jobs   jobs
	log    *slog.Logger
	room   chan struct{} // as many as drain at the same time, of all consumers: each takes a connection
	turns  rooms         // by consumer: one at a time has it
	clock  *clock

	givesWay func(consumer string) bool // the engine's
}

func newDrainWorker(pool *pgxpool.Pool, clock *clock, log *slog.Logger) *drainWorker {
	conns := pool.Config().MaxConns
	return &drainWorker{log: log, clock: clock, room: make(chan struct{}, conns-min(poolKept, conns/3)), turns: rooms{size: 1}}
}

// rooms are as many places for each consumer, also for one that comes later.
type rooms struct {
	size int
	of   sync.Map // of chan struct{}, by consumer
}

func (r *rooms) room(consumer string) chan struct{} {
	room, ok := r.of.Load(consumer)
	if !ok {
		room, _ = r.of.LoadOrStore(consumer, make(chan struct{}, r.size))
	}
	return room.(chan struct{})
}

func (*drainWorker) Timeout(*river.Job[DrainArgs]) time.Duration { return drainTime }

// begin is within what time jobs begin when so many are taken up at once: later, if they are drains and there may not be room for all, or
// they are to wait for their turn.
func (w *drainWorker) begin(queue string, jobs int) time.Duration {
	consumer, drains := drainsOf(queue)
	if drains && (len(w.room)+jobs > cap(w.room) || w.givesWay(consumer)) {
		return drainLater
	}
	return 0
}

// drainsOf returns the consumer whose drains a queue has, if it has drains.
func drainsOf(queue string) (consumer string, ok bool) {
	if queue == outbox.RelayQueue {
		return "", false
	}
	return strings.CutPrefix(queue, outbox.DrainQueue(""))
}

// Work drains a lane for a while. It never fails: what is left, for whatever reason, keeps the lane due.
func (w *drainWorker) Work(ctx context.Context, job *river.Job[DrainArgs]) error {
	later := job.AttemptedAt.After(w.clock.Now().Add(drainTime))
	w.drain(ctx, outbox.Lane{Consumer: job.Args.Consumer, Lane: job.Args.Lane}, job.ID, later)
	return nil
}

// turn waits until no other drain of the consumer has the turn in this process, for so long at most. It returns what gives the turn to the
// next one.
func (w *drainWorker) turn(ctx context.Context, consumer string, most time.Duration) (done func()) {
	if most == 0 {
		return func() {}
	}
	turn := w.turns.room(consumer)
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }
	case <-timer.C:
	case <-ctx.Done():
	}
	return func() {}
}

// enter waits for room, and reports whether there is some. Of a job that has to wait it is said before that it begins later, unless that was
// said when it was taken up; and then that it begins.
func (w *drainWorker) enter(ctx context.Context, jobID int64, later bool) bool {
	select {
	case w.room <- struct{}{}:
	default:
		if jobID != 0 && !later {
			w.say(ctx, jobID, drainLater)
			later = true // even if it failed: it may have come through
		}
		select {
		case w.room <- struct{}{}:
		case <-ctx.Done():
			return false
		}
	}
	if !later || w.say(ctx, jobID, 0) {
		return true
	}
	<-w.room
	return false
}

func (w *drainWorker) say(ctx context.Context, jobID int64, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, sayTime)
	defer cancel()
	err := w.engine.DrainBegins(ctx, jobID, within)
	if err != nil {
		w.log.Debug("drain: say when it begins", "error", err) // in an outage that is nothing new
	}
	return err == nil
}

// wait is how long a drain of the consumer waits for its turn at most: not for long, and not where there is a backlog, which several at a time
// work off fastest, unless they are to give way.
func (w *drainWorker) wait(consumer string) time.Duration {
	switch {
	case w.givesWay(consumer):
		return wayWait
	case w.engine.HasBacklog(consumer):
		return 0
	}
	return turnWait
}

func (w *drainWorker) drain(ctx context.Context, lane outbox.Lane, jobID int64, later bool) {
	wait := w.wait(lane.Consumer)
	if wait == wayWait && jobID != 0 && !later {
		w.say(ctx, jobID, drainLater)
		later = true
	}
	defer w.turn(ctx, lane.Consumer, wait)()
	if !w.enter(ctx, jobID, later) {
		return
	}
	defer func() { <-w.room }()
	more, err := w.slice(ctx, lane, jobID)
	switch {
	case outbox.IsUncovered(err):
		// The queue is about to be given up.
	case err != nil && ctx.Err() == nil:
		w.log.Error("drain", "consumer", lane.Consumer, "lane", lane.Lane, "error", err)
	case more && ctx.Err() == nil:
		// The lane's next turn. If this is lost, the relay finds the lane behind.
		failpoint.At(failpoint.DrainNext)
		err := w.jobs.wakeLane(ctx, lane)
		if err != nil {
			w.log.Error("drain: next turn", "consumer", lane.Consumer, "lane", lane.Lane, "error", err)
		}
	}
}

// slice drains a lane until nothing is left or its time is over. Where it gives way, it lets as much time pass after each batch as that took.
func (w *drainWorker) slice(ctx context.Context, lane outbox.Lane, jobID int64) (more bool, err error) {
	for end := time.Now().Add(drainSlice); ; jobID = 0 { // the job is done with the first batch
		began := time.Now()
		gives, left := w.givesWay(lane.Consumer), end.Sub(began)
		if gives {
			left = 0 // one batch
		}
		more, err = w.engine.Drain(ctx, lane, jobID, left)
		if err != nil || !more || !gives {
			return more, err
		}
		timer := time.NewTimer(min(time.Since(began), wayPause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return more, ctx.Err()
		case <-timer.C:
		}
		if time.Now().After(end) {
			return more, nil
		}
	}
}

// here runs drains in this process without a job, for the relay that leads in it: a few of each consumer at a time, so
// that slow handlers end up in the consumer's queue, where they have their own limit.
type here struct {
	drains *drainWorker
	works  func(consumer string) bool // whether this process works its queues
	room   rooms
	ctx    context.Context //nolint:containedctx // of the workers' run: it ends what runs in the background
	end    context.CancelFunc

	mu      sync.Mutex
	running sync.WaitGroup
	stopped bool
}

// drainsHere is how many drains of a consumer run without a job at a time.
const drainsHere = 2

func newHere(works func(consumer string) bool, drains *drainWorker) *here {
	h := &here{drains: drains, works: works, room: rooms{size: drainsHere}}
	h.ctx, h.end = context.WithCancel(context.Background())
	return h
}

func (h *here) drain(l outbox.Lane) bool {
	if !h.works(l.Consumer) {
		return false
	}
	room := h.room.room(l.Consumer)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return false
	}
	select {
	case room <- struct{}{}:
	default:
		return false
	}
	h.running.Go(func() {
		defer func() { <-room }()
		h.drains.drain(h.ctx, l, 0, false)
	})
	return true
}

// stop lets what runs finish for a while, and then cancels it.
func (h *here) stop(soft time.Duration) {
	h.mu.Lock()
	h.stopped = true
	h.mu.Unlock()
	timer := time.AfterFunc(soft, h.end)
	h.running.Wait()
	timer.Stop()
	h.end()
}

type deliverWorker struct {
	river.WorkerDefaults[DeliverArgs]
	engine *outbox.Engine
	clock  *clock
}

// Timeout is none: the engine bounds the attempt itself, and rescues it by the database's clock.
func (*deliverWorker) Timeout(*river.Job[DeliverArgs]) time.Duration { return -1 }

// NextRetry counts the attempts of the consumer, of which the first may have been a drain's.
func (w *deliverWorker) NextRetry(job *river.Job[DeliverArgs]) time.Time {
	return w.clock.Now().Add(w.engine.Backoff(job.Args.Consumer, job.Attempt))
}

func (w *deliverWorker) Work(ctx context.Context, job *river.Job[DeliverArgs]) error {
	if wait := min(time.Until(job.Args.NotBefore), mostWait); job.Attempt == 1 && wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return river.JobSnooze(0)
		case <-timer.C:
		}
	}
	err := w.engine.Deliver(ctx, job.ID, job.Args.Consumer, job.Args.EventID)
	failpoint.At(failpoint.DeliverComplete)
	var later *outbox.RetryLaterError
	switch {
	case outbox.IsUncovered(err):
		return river.JobSnooze(time.Second)
	case errors.As(err, &later):
		return river.JobSnooze(later.After)
	case outbox.IsPermanent(err):
		return river.JobCancel(err)
	default:
		return err
	}
}
