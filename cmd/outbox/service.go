package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/mail"
	"github.com/pgoutbox/pgoutbox/internal/metrics"
	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/telemetry"
	"github.com/pgoutbox/pgoutbox/migrations"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
	"github.com/pgoutbox/pgoutbox/workers"
	"github.com/pgoutbox/pgoutbox/workers/consumers"
)

// Roles of a process.
const (
	roleAll    = "all"
	roleAPI    = "api"
	roleWorker = "worker"
)

const (
	// drainHTTP is how long requests that are under way may take when the service stops; a Prefer: wait is cut short by it.
	drainHTTP = 15 * time.Second
	// softStop is how long jobs that are under way may take; stopWorkers is softStop and the time to cancel the rest.
	softStop    = 10 * time.Second
	stopWorkers = 20 * time.Second
	// closePool is how long connections may be in use when all that uses them has been told to end.
	closePool = 3 * time.Second
	// purgeEvery is how often answers kept for Idempotency-Keys, sessions and counts of rate limits are cleared of the expired ones.
	purgeEvery = 10 * time.Minute
)

// service is one process: the listeners and the workers of its role over one pool.
type service struct {
	cfg  config
	role string
	log  *slog.Logger
	dev  *handlers.DevTools // nil outside of dev

	pool     *pgxpool.Pool
	tracing  *telemetry.Telemetry
	metrics  *metrics.Metrics
	workers  *workers.Workers
	reg      *outbox.Registry // nil where no workers run
	api      *listener
	admin    *listener
	stopping atomic.Bool
	failed   chan error // a listener that died

	stopFaults func() // in a build with the tag faults

	background context.CancelFunc
	ended      chan struct{}
}

// start brings everything up. When it fails, what was started is stopped again.
func (s *service) start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	s.failed = make(chan error, 2)
	if s.stopFaults, err = startFaults(s.log); err != nil {
		return err
	}
	if s.tracing, err = telemetry.Start(ctx, version(), s.log); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if current, err := migrations.Current(ctx, s.pool, migrations.Options{Shop: true}); err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	} else if !current {
		return errors.New("the database's schema is not up to date: run outbox migrate up")
	}

	jobs, err := workers.NewJobs(s.pool, "")
	if err != nil {
		return err
	}
	operator := outbox.NewOperator(s.pool, jobs, "", s.log)
	options, err := s.cfg.Webhooks.options()
	if err != nil {
		return err
	}
	options.Logger = s.log
	endpoints := webhooks.New(s.pool, operator, "", options)
	var admission *outbox.Admission
	if s.cfg.AdmissionMaxAge > 0 {
		if admission, err = outbox.NewAdmission(operator, s.cfg.AdmissionMaxAge, s.log); err != nil {
			return err
		}
	}
	if s.metrics, err = metrics.New(metrics.Config{
		Pool: s.pool, Stats: operator.Stats, Admission: admission, Webhooks: endpoints.List, Build: version(), Logger: s.log,
	}); err != nil {
		return err
	}
	provider, err := s.provider()
	if err != nil {
		return err
	}
	if s.role != roleAPI {
		if err := s.startWorkers(ctx, provider, endpoints); err != nil {
			return err
		}
	}
	tokens, err := s.cfg.adminTokens()
	if err != nil {
		return err
	}
	limits, err := s.cfg.rateLimits()
	if err != nil {
		return err
	}
	proxies, err := s.cfg.trustedProxies()
	if err != nil {
		return err
	}
	common := handlers.Config{
		Pool: s.pool, Logger: s.log, TracerProvider: s.tracing.TracerProvider(), Ready: s.ready, Warnings: s.warnings, Dev: s.dev,
		StripeWebhookSecrets: s.cfg.webhookSecrets(), Admission: admission,
		RateLimits: limits, RateLimited: s.metrics.RateLimited, IPExtractor: behind(proxies),
	}
	if s.role != roleWorker {
		of := common
		of.Observe = s.metrics.Requests("api")
		api := handlers.NewAPI(of)
		if s.api, err = s.listen("api", s.cfg.Addr, api); err != nil {
			return fmt.Errorf("OUTBOX_ADDR: %w", err)
		}
	}
	common.Observe = s.metrics.Requests("admin")
	river, err := newRiverUI(s.pool, s.log)
	if err != nil {
		return err
	}
	code := s.reg
	if code == nil {
		code = consumersCode(s.pool)
	}
	admin := handlers.NewAdmin(handlers.AdminConfig{
		Config: common, Operator: operator.WithConsumers(code), Tokens: tokens, Webhooks: endpoints, Metrics: s.metrics.Handler(), River: river,
	})
	if s.admin, err = s.listen("admin", s.cfg.AdminAddr, admin); err != nil {
		return fmt.Errorf("OUTBOX_ADMIN_ADDR: %w", err)
	}
	if len(tokens) == 0 {
		s.log.Warn("OUTBOX_ADMIN_TOKENS is empty: there are no admin routes")
	}
	s.startPurge()
	return nil
}

func (s *service) provider() (payments.Provider, error) {
	if s.cfg.Payments == "stripe" {
		return payments.NewStripe(payments.StripeConfig{SecretKey: s.cfg.StripeSecretKey, URL: stripeURL(), Timeout: 5 * time.Second})
	}
	return payments.NewSandbox(s.pool), nil
}

func (s *service) startWorkers(ctx context.Context, provider payments.Provider, endpoints *webhooks.Store) error {
	sender, err := mail.NewSender(s.cfg.SMTPURL)
	if err != nil {
		return fmt.Errorf("SMTP_URL: %w", err)
	}
	s.reg = outbox.NewRegistry()
	consumers.Register(s.reg, consumers.Deps{Pool: s.pool, Mail: sender, Payments: payments.Traced(provider), Logger: s.log})
	registerFaults(s.reg, s.pool)
	s.workers, err = workers.New(s.pool, s.reg, workers.Config{
		MaxAttempts: s.cfg.MaxAttempts, RetryBase: s.cfg.RetryBase, RetryMax: s.cfg.RetryMax, Retention: s.cfg.Retention,
		PollOnly: s.cfg.PollOnly, SoftStop: softStop,
		Logger: s.log, LogDeliveries: s.cfg.LogDeliveries == "all", Build: version(),
		TracerProvider: s.tracing.TracerProvider(), Observer: s.metrics, Consumers: endpoints.Consumers,
	})
	if err != nil {
		return err
	}
	return s.workers.Start(ctx)
}

// startPurge clears expired answers now and then, until the service stops.
func (s *service) startPurge() {
	if s.role == roleWorker {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.background, s.ended = cancel, make(chan struct{})
	go func() {
		defer close(s.ended)
		ticker := time.NewTicker(purgeEvery)
		defer ticker.Stop()
		for {
			for _, purge := range []func(context.Context, *pgxpool.Pool) (int64, error){
				handlers.PurgeIdempotencyKeys, handlers.PurgeSessions, handlers.PurgeRateLimits,
			} {
				if _, err := purge(ctx, s.pool); err != nil && ctx.Err() == nil {
					s.log.Error("purge", "error", err)
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
}

// stop ends everything in order: not ready, no new requests, the jobs, the last spans, the pool. Each step has a bound.
func (s *service) stop() {
	s.stopping.Store(true)
	if s.api != nil {
		s.api.close(s.log)
	}
	if s.background != nil {
		s.background()
		<-s.ended
	}
	if s.workers != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopWorkers)
		defer cancel()
		if err := s.workers.Stop(ctx); err != nil {
			s.log.Error("stop the workers", "error", err)
		}
	}
	// The admin listener goes last: until here it says that the service is not ready.
	if s.admin != nil {
		s.admin.close(s.log)
	}
	if s.tracing != nil {
		if err := s.tracing.Stop(); err != nil {
			s.log.Warn("stop: the last spans were not exported", "error", err)
		}
	}
	if s.stopFaults != nil {
		s.stopFaults()
	}
	// A handler that never returns keeps its connection; the process ends all the same, and the server ends the transaction.
	closed := make(chan struct{})
	go func() {
		s.pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closePool):
		s.log.Error("stop: a handler has not returned, and keeps its connection")
	}
}

// run serves until ctx ends or a part fails.
func (s *service) run(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
	case err = <-s.failed:
	}
	s.stop()
	return err
}
