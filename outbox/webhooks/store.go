package webhooks

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// ConsumerPrefix stands before an endpoint's name in that of its consumer.
const ConsumerPrefix = "webhook-"

// Defaults of Options.
const (
	DefaultDisableAfter = 72 * time.Hour
	DefaultSource       = "urn:pgoutbox"
	DefaultTimeout      = 15 * time.Second
)

// States of an endpoint.
const (
	// Working: its last delivery succeeded, or it had none yet.
	Working = "working"
	// Failing: nothing has succeeded since FailingSince. It is tried on.
	Failing = "failing"
	// Disabled: nothing is sent until it is enabled; its events wait in the log.
	Disabled = "disabled"
	// Paused: its consumer is paused, by somebody who did not disable the endpoint. Enable, or resume the consumer.
	Paused = "paused"
)

// Options say how a Store sends. The zero value has good defaults.
type Options struct {
	// Networks are addresses that endpoints may have beyond the public ones, and the only ones to which plain http:// goes. Default: none.
	Networks []netip.Prefix
	// DisableAfter is for how long nothing but failures comes before an endpoint is disabled. Default DefaultDisableAfter.
	DisableAfter time.Duration
	// Source is the source of all CloudEvents, a URI reference. Default DefaultSource.
	Source string
	// Timeout is how long one delivery may take, from the look-up of the host to the answer's head. Default DefaultTimeout.
	Timeout time.Duration
	// Logger is told when an endpoint begins to fail, recovers and is disabled. Default: nobody is.
	Logger *slog.Logger
}

// Store keeps the endpoints in the database and sends to them. It is safe for concurrent use, by any number of processes: what one
// changes holds in all of them from the next delivery on.
type Store struct {
	pool     *pgxpool.Pool
	operator *outbox.Operator
	schema   outbox.Schema
	q        *outboxdb.Queries
	o        Options
	sender   *sender

	mu       sync.Mutex
	names    []string // of the consumers that registry has
	registry *outbox.Registry
}

// New returns a store over the tables that pool finds in schema (empty: by the search_path), which are the operator's, too.
func New(pool *pgxpool.Pool, operator *outbox.Operator, schema outbox.Schema, o Options) *Store {
	if o.DisableAfter <= 0 {
		o.DisableAfter = DefaultDisableAfter
	}
	if o.Source == "" {
		o.Source = DefaultSource
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{pool: pool, operator: operator, schema: schema, q: outboxdb.New(), o: o, sender: newSender(o, nil)}
}

// Endpoint is an HTTP endpoint and how it does. Its secret is not among it: Create and Rotate give that, once.
type Endpoint struct {
	Name string `json:"name"`
	// Consumer is the name of its consumer, of which lag, dead letters and all else are to be asked.
	Consumer string `json:"consumer"`
	// URL is where it is. Of a query, which may hold a token, it says only that there is one: "?…".
	URL string `json:"url"`
	// Types are the event types that it gets: types, prefixes with a star (cart.*), or * alone.
	Types []string `json:"types"`
	// State is Working, Failing, Disabled or Paused.
	State string `json:"state"`
	// FailingSince is when the first failure since the last success was.
	FailingSince *time.Time `json:"failing_since"`
	// LastStatus and LastError are of the last failure, or of the success that ended it, which was at LastAt; both are null where there was
	// no failure since the endpoint was made, or since its URL was changed. LastStatus is null where there was no answer.
	LastStatus *int       `json:"last_status"`
	LastError  string     `json:"last_error,omitempty"`
	LastAt     *time.Time `json:"last_at"`
	// DisabledAt and DisabledReason are there while it is Disabled.
	DisabledAt     *time.Time `json:"disabled_at"`
	DisabledReason string     `json:"disabled_reason,omitempty"`
	CreatedAt      time.Time  `json:"created_at"`
	ChangedAt      time.Time  `json:"changed_at"`
}

// InvalidError says which field of an endpoint was refused. Nothing was changed.
type InvalidError struct {
	// Field is name, url, types, secret or since.
	Field  string
	Reason string
}

func (e *InvalidError) Error() string { return "webhooks: " + e.Field + " " + e.Reason }

// List returns all endpoints by name.
func (s *Store) List(ctx context.Context) ([]Endpoint, error) { return s.list(ctx, nil) }

// Get returns an endpoint, or outbox.ErrNotFound.
func (s *Store) Get(ctx context.Context, name string) (Endpoint, error) {
	consumer := ConsumerPrefix + name
	found, err := s.list(ctx, &consumer)
	if err != nil {
		return Endpoint{}, err
	}
	if len(found) == 0 {
		return Endpoint{}, unknown(name)
	}
	return found[0], nil
}

func nameOf(consumer string) string { return strings.TrimPrefix(consumer, ConsumerPrefix) }

func unknown(name string) error {
	return fmt.Errorf("%w: no such webhook %q", outbox.ErrNotFound, name)
}

func (s *Store) list(ctx context.Context, consumer *string) ([]Endpoint, error) {
	rows, err := s.q.WebhookList(ctx, s.db(s.pool), consumer)
	if err != nil {
		return nil, fmt.Errorf("webhooks: read endpoints: %w", err)
	}
	all := make([]Endpoint, len(rows))
	for i, r := range rows {
		e := Endpoint{
			Name: nameOf(r.Consumer), Consumer: r.Consumer, URL: shown(r.Url), Types: r.Types, State: Working,
			FailingSince: utc(r.FailingSince), LastError: r.LastError, LastAt: utc(r.LastAt), CreatedAt: r.CreatedAt.UTC(), ChangedAt: r.ChangedAt.UTC(),
		}
		if r.LastStatus != nil {
			status := int(*r.LastStatus)
			e.LastStatus = &status
		}
		switch {
		case r.Disabled:
			e.State, e.DisabledAt, e.DisabledReason = Disabled, utc(r.DisabledAt), r.DisabledReason
		case r.PausedAt != nil:
			e.State = Paused
		case r.FailingSince != nil:
			e.State = Failing
		}
		all[i] = e
	}
	return all, nil
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// Consumers returns the endpoints' consumers, for workers.Config.Consumers. It is the same registry as before where there are the same.
func (s *Store) Consumers(ctx context.Context) (*outbox.Registry, error) {
	names, err := s.q.WebhookConsumers(ctx, s.db(s.pool))
	if err != nil {
		return nil, fmt.Errorf("webhooks: read consumers: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.registry != nil && slices.Equal(names, s.names) {
		return s.registry, nil
	}
	reg := outbox.NewRegistry()
	for _, name := range names {
		// What comes is decided by the subscriptions in the database.
		outbox.HandleExternal(reg, name, s.deliver, outbox.On("*"), outbox.MaxAttempts(maxAttempts), outbox.Backoff(retryBase, retryMax),
			outbox.Timeout(s.o.Timeout+spare), outbox.Concurrency(concurrency))
	}
	s.names, s.registry = names, reg
	return reg, nil
}

func (s *Store) db(db outboxdb.DBTX) outboxdb.DBTX { return outboxdb.On(string(s.schema), db) }
