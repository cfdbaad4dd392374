package outbox

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// Lanes is how many lanes the keys are spread over; a consumer reads each of them with a cursor of its own.
const Lanes = 64

// DefaultRetention is how long events stay in the log where nothing else is said.
const DefaultRetention = 30 * 24 * time.Hour

// Config is what an Engine needs to know beyond its consumers. The zero value has good defaults.
type Config struct {
	// Schema holds the tables. Default: whatever the search_path finds.
	Schema Schema
	// MaxAttempts is after how many failed attempts an event is a dead letter. Default 25.
	MaxAttempts int
	// RetryBase is the wait after the first failure; it doubles up to RetryMax. Defaults 1 s and 1 h.
	RetryBase, RetryMax time.Duration
	// Retention is how long Retain leaves events in the log after they were relayed, at least. Default 30 days; negative: for
	// ever.
	Retention time.Duration
	// Logger gets what the engine has to say. Default: nothing is logged.
	Logger *slog.Logger
	// LogDeliveries logs a line for every delivery, and not only for failed ones and those with a job of their own, of which the others have
	// one for each batch.
	LogDeliveries bool
	// TracerProvider makes the spans of relay, drains and deliveries, of events whose producers were traced. Default: none are made. The
	// global one is not looked for, so that it is said where the engine is made whether it is traced: otel.GetTracerProvider() is it.
	TracerProvider trace.TracerProvider
	// Build names the running code in the records of attempts.
	Build string
	// DrainHere, when not nil, drains a lane in the background of this process, without a job, and returns true, or
	// false when it has no room for that. Under little load a relay asks for it, since a job's way to a worker takes longer
	// than the work. Should such a drain be lost with its process, the lane is found behind, and gets a job.
	DrainHere func(Lane) bool
	// Observer is told what the engine does. Default: nobody is.
	Observer Observer

	sampleEvery time.Duration // a test's
}

// Lane is one consumer's share of the keys.
type Lane struct {
	Consumer string
	Lane     int16
}

// Delivery is an event for a job of its own.
type Delivery struct {
	Consumer      string
	EventID       uuid.UUID
	CorrelationID string
	// MaxAttempts is how many attempts the job has.
	MaxAttempts int
	// After is how long from now the first of them waits.
	After time.Duration
	// NotBefore is given instead where the wait is shorter than a job's way to a worker: that waits out the rest.
	NotBefore time.Time
}

// Jobs is what the engine asks of the job queue. All its methods write within tx.
type Jobs interface {
	// WakeLanes inserts a drain job for each lane.
	WakeLanes(ctx context.Context, tx pgx.Tx, lanes []Lane) error
	// Deliver inserts a deliver job for each delivery and returns their ids in the same order. A delivery that has an
	// unfinished job already is a *ConflictError.
	Deliver(ctx context.Context, tx pgx.Tx, deliveries []Delivery) ([]int64, error)
	// SetPaused stops or resumes a consumer's jobs.
	SetPaused(ctx context.Context, tx pgx.Tx, consumer string, paused bool) error
	// StartRelay inserts a relay job.
	StartRelay(ctx context.Context, tx pgx.Tx) error
}

// RelayQueue is the job queue of the relay.
const RelayQueue = "outbox_relay"

// DrainQueue is the job queue of a consumer's drains.
func DrainQueue(consumer string) string { return "outbox_" + consumer }

// DeliverQueue is the job queue of a consumer's deliveries. It has workers of its own: neither does a backlog keep what failed
// from being tried again, nor do many failures keep the lanes from going on.
func DeliverQueue(consumer string) string { return "deliver_" + consumer }

// Engine moves events from the outbox to the consumers. Package workers runs it on River; its methods are the steps.
// It is safe for concurrent use by any number of goroutines and processes.
type Engine struct {
	pool     *pgxpool.Pool
	code     *Registry                // that the engine was made with
	reg      atomic.Pointer[Registry] // the consumers that it runs: the code's, and those of SetConsumers
	jobs     Jobs
	cfg      Config
	schema   Schema
	q        *outboxdb.Queries
	log      *slog.Logger
	tracer   trace.Tracer // nil: there are no spans
	operator *Operator    // for operations
	paces    sync.Map     // of *pace, by consumer
	busyAt   atomic.Int64 // when a drain of this process last took a batch of a size that tells of load, in Unix nanoseconds

	// When it was last asked beside a backlog whether somebody writes, and when somebody last did; in Unix nanoseconds.
	lookedAt, writtenAt atomic.Int64
}

// NewEngine returns an engine over the tables that pool finds.
func NewEngine(pool *pgxpool.Pool, reg *Registry, jobs Jobs, cfg Config) *Engine {
	if cfg.MaxAttempts <= 0 {
		cfg.MaxAttempts = 25
	}
	if cfg.RetryBase <= 0 {
		cfg.RetryBase = time.Second
	}
	if cfg.RetryMax <= 0 {
		cfg.RetryMax = time.Hour
	}
	cfg.RetryMax = max(cfg.RetryMax, cfg.RetryBase)
	if cfg.Retention == 0 {
		cfg.Retention = DefaultRetention
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	if cfg.sampleEvery == 0 {
		cfg.sampleEvery = sampleEvery
	}
	e := &Engine{
		pool: pool, code: reg, jobs: jobs, cfg: cfg, schema: cfg.Schema, q: outboxdb.New(), log: cfg.Logger,
		operator: NewOperator(pool, jobs, cfg.Schema, cfg.Logger),
	}
	e.reg.Store(reg)
	if cfg.TracerProvider != nil {
		e.tracer = cfg.TracerProvider.Tracer(scope)
	}
	return e
}

// SetConsumers makes also the consumers that the engine runs beside those that it was made with, instead of what was set before. It does
// not register them: one that the database does not know is Uncovered until somebody makes it (Operator.Create). A name that the engine's own
// registry has is refused, and returned: that consumer stays as it is in the code. What is under way ends with the consumer that it began with.
// also must not be changed afterwards. It is safe to call while the engine runs.
func (e *Engine) SetConsumers(also *Registry) (refused []string) {
	all := &Registry{consumers: maps.Clone(e.code.consumers), upcasters: e.code.upcasters}
	for _, c := range also.Consumers() {
		if e.code.Consumer(c.Name) != nil {
			refused = append(refused, c.Name)
			continue
		}
		all.consumers[c.Name] = c
	}
	e.reg.Store(all)
	return refused
}

// Consumers returns the consumers that the engine runs, by name: those that it was made with and those of SetConsumers.
func (e *Engine) Consumers() []*Consumer { return e.reg.Load().Consumers() }

// consumer returns the consumer of that name, or nil.
func (e *Engine) consumer(name string) *Consumer { return e.reg.Load().Consumer(name) }

// Each transaction of the engine says its isolation and its bounds itself: what a server, a role or a pooler has set
// is not relied upon. The bounds end with the transaction. (See also EngineBounds in sql/outbox/drain.sql.)
const beginEngine = `begin isolation level read committed;
set local lock_timeout = '5s'; set local statement_timeout = '30s'; set local idle_in_transaction_session_timeout = '10s'`

// inTx runs fn in a transaction of the engine.
func (e *Engine) inTx(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, e.pool, pgx.TxOptions{BeginQuery: beginEngine}, fn)
}

// inLaterTx is inTx for what may be lost in a crash of the server, like EngineCommitsLater.
func (e *Engine) inLaterTx(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, e.pool, pgx.TxOptions{BeginQuery: beginEngine + `; set local synchronous_commit = off`}, fn)
}

// db puts the schema before our tables in every generated query.
func (e *Engine) db(db outboxdb.DBTX) outboxdb.DBTX { return e.schema.on(db) }

func (s Schema) on(db outboxdb.DBTX) outboxdb.DBTX { return outboxdb.On(string(s), db) }

// maxAttempts and backoff are the consumer's own, else the engine's.
func (e *Engine) maxAttempts(c *Consumer) int {
	if c.MaxAttempts > 0 {
		return c.MaxAttempts
	}
	return e.cfg.MaxAttempts
}
