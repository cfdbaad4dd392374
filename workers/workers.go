package workers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/quiet"
	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	// maintainEvery is how often each process looks for what crashes left behind.
	maintainEvery = 5 * time.Second
	// After a start it looks more often: what a crash left behind is most likely what is being restarted.
	maintainSoon      = time.Second
	maintainSoonTimes = 5
	partitionsEvery   = time.Hour
	// retainEvery is how often each process asks whether something in the log is too old.
	retainEvery = 10 * time.Minute

	// drainsAtOnce is how many lanes of a consumer one process drains at a time, at most: more of them get in each other's way.
	drainsAtOnce = 4
	// Jobs are announced by NOTIFY. Where that fails, and for those that are due later, queues are also polled.
	poll       = 1500 * time.Millisecond
	pollLazily = 5 * time.Second
)

// Config says how the workers of a process run. The zero value has good defaults.
type Config struct {
	// Schema holds the outbox's tables and River's. Default: whatever the search_path finds.
	Schema outbox.Schema
	// MaxAttempts, RetryBase and RetryMax hold for consumers that do not set their own: 25, 1 s doubling, 1 h.
	MaxAttempts         int
	RetryBase, RetryMax time.Duration
	// Retention is how long events stay in the log, at least. Default outbox.DefaultRetention; negative: for ever.
	Retention time.Duration
	// PollOnly does without LISTEN, for a pool that leads through a transaction pooler. The pool's connections then need
	// pgx.QueryExecModeCacheDescribe (in the URL: default_query_exec_mode=cache_describe).
	PollOnly bool
	// Poll is how often each queue is asked for jobs that no NOTIFY announced, retries that are due above all; at least 1 ms.
	// Default 1.5 s, and 5 s where nothing depends on it. A test asks more often.
	Poll time.Duration
	// SoftStop is how long Stop lets running jobs finish before it cancels them. Default 10 s.
	SoftStop time.Duration
	// Logger gets what the workers have to say. Default: nothing is logged.
	Logger *slog.Logger
	// LogDeliveries logs a line for every delivery, and not only for failed and external ones, of which the others have one for each batch.
	LogDeliveries bool
	// Build names the running code in the records of attempts.
	Build string
	// TracerProvider makes the spans of relay, drains and deliveries: see outbox.Config. Default: none are made.
	TracerProvider trace.TracerProvider
	// Observer is told what the engine does, for metrics. Default: nobody is.
	Observer outbox.Observer
	// Consumers returns the consumers that there are beside those of the registry: those that operators make while the service runs. It
	// is asked at the start and every two seconds, one call at a time, and within five seconds, which its context says and it has to heed.
	// What is new in its answer is worked from then on, what is gone from it is given up, and what is the same name runs as the answer has
	// it. The answer must not be changed afterwards.
	//
	// Nothing of it is registered: what a consumer subscribes to, and whether it is one, is in the database (outbox.Operator.Create), and a
	// name that the database does not know is left out. A name of the registry is refused, which is logged once. Where the function fails,
	// or panics, all stays as it is, at the start without any of these consumers, and that is logged; nothing else ends for it.
	Consumers func(ctx context.Context) (*outbox.Registry, error)
}

// Workers runs the relay, the drains and the deliveries of one process.
type Workers struct {
	engine *outbox.Engine
	client *river.Client[pgx.Tx]
	log    *slog.Logger

	stop   chan struct{} // closed when the relay is to hand over
	cancel context.CancelFunc
	loop   sync.WaitGroup
	here   *here
	clock  *clock
	pool   *pgxpool.Pool

	softStop time.Duration

	poll, lazyPoll time.Duration // the second for jobs that do not depend on it

	beside *beside // nil: there are no other consumers than the registry's
	roster *roster

	mu         sync.Mutex
	maintained time.Time
}

// New prepares the workers for the consumers of reg. Nothing runs, and nothing is written, until Start.
// Drains leave three connections of the pool, or a third of one with fewer than nine, to the relay, to River and to requests. One
// is used for LISTEN.
func New(pool *pgxpool.Pool, reg *outbox.Registry, cfg Config) (*Workers, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.SoftStop <= 0 {
		cfg.SoftStop = 10 * time.Second
	}
	w := &Workers{
		log: cfg.Logger, stop: make(chan struct{}), poll: poll, lazyPoll: pollLazily, clock: newClock(), pool: pool, roster: newRoster(),
	}
	if cfg.Consumers != nil {
		w.beside = &beside{ask: cfg.Consumers, log: cfg.Logger, refused: map[string]bool{}}
	}
	switch {
	case cfg.Poll > 0:
		w.poll, w.lazyPoll = cfg.Poll, cfg.Poll
	case cfg.PollOnly:
		w.lazyPoll = poll
	}
	relay, drain, deliver := &relayWorker{stop: w.stop}, newDrainWorker(pool, w.clock, cfg.Logger), &deliverWorker{clock: w.clock}
	w.here, w.softStop = newHere(w.roster.works, drain), cfg.SoftStop
	known := river.NewWorkers()
	river.AddWorker(known, relay)
	river.AddWorker(known, drain)
	river.AddWorker(known, deliver)
	client, err := river.NewClient(newDriver(pool, w.roster.queues, drain.begin, w.clock, cfg.Logger), &river.Config{
		Schema:              string(cfg.Schema),
		Workers:             known,
		Queues:              map[string]river.QueueConfig{outbox.RelayQueue: {MaxWorkers: 1, FetchPollInterval: w.lazyPoll}},
		FetchCooldown:       time.Millisecond,
		FetchPollInterval:   w.poll,
		FetchOnlyKnownKinds: true,
		// What became of events is in the delivery log. Wake-ups and deliveries that are done are gone with the commit.
		CompletedJobRetentionPeriod: time.Hour,
		PollOnly:                    cfg.PollOnly,
		SoftStopTimeout:             cfg.SoftStop,
		// River's clock can be set here and nowhere else; it is not about tests only.
		Test:   river.TestConfig{Time: w.clock},
		Logger: slog.New(quiet.Warnings(cfg.Logger.Handler())),
	})
	if err != nil {
		return nil, fmt.Errorf("workers: river client: %w", err)
	}
	w.client = client
	w.engine = outbox.NewEngine(pool, reg, jobs{client, w.clock}, outbox.Config{
		Schema: cfg.Schema, MaxAttempts: cfg.MaxAttempts, RetryBase: cfg.RetryBase, RetryMax: cfg.RetryMax, Retention: cfg.Retention,
		Logger: cfg.Logger, LogDeliveries: cfg.LogDeliveries, Build: cfg.Build, DrainHere: w.here.drain,
		TracerProvider: cfg.TracerProvider,
		Observer:       cfg.Observer,
	})
	relay.engine, drain.engine, deliver.engine = w.engine, w.engine, w.engine
	drain.jobs, drain.givesWay = jobs{client, w.clock}, w.engine.GivesWay
	return w, nil
}

// Engine is the engine that these workers run.
func (w *Workers) Engine() *outbox.Engine { return w.engine }

// Start registers the consumers and starts to work, in the background. ctx bounds the start alone; end the work with Stop.
func (w *Workers) Start(ctx context.Context) error {
	if w.beside != nil {
		w.beside.look(ctx, w.engine)
	}
	uncovered, err := w.engine.Register(ctx)
	if err != nil {
		return err
	}
	if err := w.engine.MakePartitions(ctx); err != nil {
		return err
	}
	if err := w.clock.measure(ctx, w.pool); err != nil {
		return err
	}
	w.maintained = time.Now() // the database has just been reached
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.cancel = cancel
	if err := w.client.Start(running); err != nil {
		cancel()
		return fmt.Errorf("workers: start river: %w", err)
	}
	if err := w.cover(running, uncovered); err != nil {
		cancel()
		return err
	}
	w.loop.Go(func() { w.maintain(running) })
	w.loop.Go(func() { w.retain(running) })
	w.loop.Go(func() { w.engine.RunOperations(running, w.stop) })
	if w.beside != nil {
		w.loop.Go(func() { w.follow(running) })
	}
	return nil
}

// Stop ends the work: the relay hands over, no new job is begun, running ones get Config.SoftStop to finish and are
// then cancelled. It returns when all is quiet, or with ctx's error when ctx ends first. The pool must outlive it.
func (w *Workers) Stop(ctx context.Context) error {
	if w.cancel == nil {
		return nil
	}
	close(w.stop)
	w.loop.Go(func() { w.here.stop(w.softStop) })
	err := w.client.Stop(ctx)
	w.cancel()
	w.cancel = nil
	quiet := make(chan struct{})
	go func() {
		w.loop.Wait()
		close(quiet)
	}()
	select {
	case <-quiet:
	case <-ctx.Done(): // a drain of this process, outside of River, whose handler does not heed its context
		err = cmp.Or(err, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("workers: stop river: %w", err)
	}
	return nil
}

// Ready returns an error when these workers have not been able to reach the database for a while.
func (w *Workers) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.maintained) > 4*maintainEvery {
		return errors.New("workers: the database has not been reached for a while")
	}
	return nil
}

func (w *Workers) maintain(ctx context.Context) {
	wait, soon, partitions := time.Duration(0), maintainSoonTimes, time.Now()
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if wait = maintainEvery; soon > 0 {
			wait, soon = maintainSoon, soon-1
		}
		err := w.clock.measure(ctx, w.pool)
		if err == nil {
			err = w.engine.Maintain(ctx)
		}
		if err == nil {
			var uncovered []string
			if uncovered, err = w.engine.Uncovered(ctx); err == nil {
				err = w.cover(ctx, uncovered)
			}
		}
		if err == nil && time.Since(partitions) > partitionsEvery {
			err = w.engine.MakePartitions(ctx)
			partitions = time.Now()
		}
		if err != nil {
			if ctx.Err() == nil {
				w.log.Error("maintenance", "error", err)
			}
			continue
		}
		w.mu.Lock()
		w.maintained = time.Now()
		w.mu.Unlock()
	}
}

// retain drops what is too old. It is no part of maintain: it may take its time.
func (w *Workers) retain(ctx context.Context) {
	tick := time.NewTicker(failpoint.Every(retainEvery))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := w.engine.Retain(ctx); err != nil && ctx.Err() == nil {
			w.log.Error("retention", "error", err)
		}
	}
}
