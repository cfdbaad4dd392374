package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Kind tells the consumers whose work is in the database from those that call the outside.
type Kind string

const (
	// KindTx consumers do their work in the transaction that records it: exactly once.
	KindTx Kind = "tx"
	// KindExternal consumers call something that no transaction reaches, with the event id as idempotency key.
	KindExternal Kind = "external"
)

// DeadPolicy is what becomes of an event's key when its attempts are used up.
type DeadPolicy string

const (
	// Hold keeps the key's later events behind the dead one, in order, until that is replayed or dismissed.
	Hold DeadPolicy = "hold"
	// Skip lets them go on without it: for a consumer to which the newest matters more than the order. The dead letter
	// stays, and a replay of it, which would be out of order, has to be forced once later events of the key were applied.
	Skip DeadPolicy = "skip"
)

// Registry holds the consumers of a program. Fill it before workers.New; it is not safe to change afterwards.
type Registry struct {
	consumers map[string]*Consumer
	upcasters upcasters
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{consumers: map[string]*Consumer{}, upcasters: upcasters{}}
}

// Consumer is a named reaction to some event types.
type Consumer struct {
	Name string
	// Formerly is the name that it had before, if it had another.
	Formerly string
	Kind     Kind
	Patterns []string
	// Start is where it begins when it is new.
	Start Start
	// Ordered consumers get the events of a key one after the other, also across failures.
	Ordered bool
	// OnDead is what happens to the key of an event that became a dead letter.
	OnDead DeadPolicy
	// MaxAttempts is after how many failed attempts an event is a dead letter; 0: the engine's default.
	MaxAttempts int
	// RetryBase doubles from attempt to attempt up to RetryMax; 0: the engine's defaults.
	RetryBase, RetryMax time.Duration
	// Timeout is how long one attempt of a deliver job may take.
	Timeout time.Duration
	// Concurrency is how many deliver jobs of this consumer one process works at a time, and how many lanes it drains, if
	// that is below the workers' own limit.
	Concurrency int

	tx       func(ctx context.Context, tx pgx.Tx, e *item, attempt int) error
	set      func(ctx context.Context, tx pgx.Tx, es []*item, attempt int) error
	external func(ctx context.Context, e *item, attempt int) (record, error)
	happened func(ctx context.Context, tx pgx.Tx, eventID uuid.UUID) (what string, err error)
	// check tells whether the handler's type strictly takes the data: see InvalidDataError.
	check func(e *stored) error
}

// record is what an external handler wants written with its success.
type record = func(ctx context.Context, tx pgx.Tx) error

// Option sets something about a consumer.
type Option func(*Consumer)

// On subscribes the consumer to event types. A pattern is a type, a prefix of one and a star (cart.*), or * alone.
func On(patterns ...string) Option {
	return func(c *Consumer) { c.Patterns = append(c.Patterns, patterns...) }
}

// MayHaveHappened is for a consumer whose handler does something outside that cannot be taken back, like a charge. It is asked, in the
// transaction of a dismissal, whether that may have been done for the event although nothing here says so, and answers what, or "": while it
// may, a dead letter is given up by force alone. Replaying it finds out. An operator without the consumers' code cannot ask (WithConsumers).
func MayHaveHappened(what func(ctx context.Context, tx pgx.Tx, eventID uuid.UUID) (string, error)) Option {
	return func(c *Consumer) { c.happened = what }
}

// MaxAttempts sets after how many failed attempts an event is a dead letter.
func MaxAttempts(n int) Option { return func(c *Consumer) { c.MaxAttempts = n } }

// Backoff sets the wait after the first failure, which doubles with each further one up to limit.
func Backoff(base, limit time.Duration) Option {
	return func(c *Consumer) { c.RetryBase, c.RetryMax = base, limit }
}

// Timeout sets how long one attempt of a deliver job may take. Default 20 s.
func Timeout(d time.Duration) Option { return func(c *Consumer) { c.Timeout = d } }

// Concurrency sets how many deliver jobs of this consumer one process works at a time: calls to the outside, or events that
// failed. The default is 16 where they call the outside, which is waiting most of the time, and 4 where they work in the
// database: more of them only take its processors from the lanes. It drains as many lanes at most, and never more than 4.
func Concurrency(n int) Option { return func(c *Consumer) { c.Concurrency = n } }

// StartFrom sets where in the log a consumer begins that the database does not know yet: Now, which is the default, Beginning
// or Since. For one that is known it says nothing: see Operator.Backfill.
func StartFrom(s Start) Option { return func(c *Consumer) { c.Start = s } }

// Formerly tells that the consumer was called name before. The first program that registers it under the new name takes over
// all that it had under the old one: cursors, subscriptions, holds, letters and what it has processed. Programs that still
// know the old name leave it alone from then on, so that a rolling deploy is safe.
func Formerly(name string) Option { return func(c *Consumer) { c.Formerly = name } }

// Unordered lets the later events of a key pass one that failed.
func Unordered() Option { return func(c *Consumer) { c.Ordered = false } }

// OnDead sets what becomes of the key of an event whose attempts are used up: Hold, the default, or Skip. It holds for
// what dies from then on; a key that is held already stays so until its dead letter is replayed or dismissed.
func OnDead(p DeadPolicy) Option { return func(c *Consumer) { c.OnDead = p } }

// Handle registers a consumer whose work is in the database. fn runs in the transaction that also records the event
// as processed: it happens once, however often the event is delivered. fn may be called again for the same event when
// its transaction did not commit, so only what it does through tx counts. Events that it appends through tx are
// written when the transaction ends.
//
// fn may queue statements with Batch, which then travel together with those of other events.
//
// An event whose data does not decode into T counts as a failed attempt and is retried: a deploy may mend it.
// Handle panics on a name or option that cannot work; it is called while a program starts.
func Handle[T any](r *Registry, consumer string, fn func(ctx context.Context, tx pgx.Tx, e Received[T]) error, opts ...Option) {
	r.add(consumer, KindTx, opts, func(c *Consumer) {
		c.check = checks[T](r)
		c.tx = func(ctx context.Context, tx pgx.Tx, e *item, attempt int) error {
			received, err := receive[T](r, c.Name, e, attempt)
			if err != nil {
				return err
			}
			return fn(ctx, tx, received)
		}
	})
}

// HandleBatch registers a consumer whose work is in the database and set-based: fn gets up to some hundred events at once,
// in the order of the log, several of a key perhaps, and works in the transaction that records them all as processed.
// One statement for all of them is several times faster than one for each.
//
// When fn returns an error or panics, what it did is undone and it is called again with fewer events, in the end
// with each alone, so that only the one that fails is held up. An event of its own job comes alone, too.
// Events that fn appends carry the correlation id and the cause that it gives them: see Received.Context.
// Data that does not decode counts as a failed attempt of that event.
//
// It is otherwise, and panics, like Handle.
func HandleBatch[T any](r *Registry, consumer string, fn func(ctx context.Context, tx pgx.Tx, events []Received[T]) error, opts ...Option) {
	r.add(consumer, KindTx, opts, func(c *Consumer) {
		c.check = checks[T](r)
		c.set = func(ctx context.Context, tx pgx.Tx, es []*item, attempt int) error {
			events := make([]Received[T], len(es))
			for i, e := range es {
				var err error
				if events[i], err = receive[T](r, c.Name, e, attempt); err != nil {
					return err
				}
			}
			return fn(ctx, tx, events)
		}
		c.tx = func(ctx context.Context, tx pgx.Tx, e *item, attempt int) error {
			return c.set(ctx, tx, []*item{e}, attempt)
		}
	})
}

// HandleExternal registers a consumer that calls the outside: SMTP, a payment provider. fn runs outside of any
// transaction, in a job of its own for each event. Give the event id to the outside as idempotency key: fn runs again
// when its outcome could not be recorded. The record it returns, which may be nil, is written in one transaction with
// the fact that the event is processed.
//
// It panics like Handle.
func HandleExternal[T any](r *Registry, consumer string, fn func(ctx context.Context, e Received[T]) (record func(ctx context.Context, tx pgx.Tx) error, err error), opts ...Option) {
	r.add(consumer, KindExternal, opts, func(c *Consumer) {
		c.check = checks[T](r)
		c.external = func(ctx context.Context, e *item, attempt int) (record, error) {
			received, err := receive[T](r, c.Name, e, attempt)
			if err != nil {
				return nil, err
			}
			return fn(ctx, received)
		}
	})
}

// With returns a copy of the registry in which each consumer has opts on top of its own options; the registry itself stays as
// it is. It is for who runs consumers that somebody else has registered: a test wants all of them to retry at once.
// It panics like Handle.
func (r *Registry) With(opts ...Option) *Registry {
	with := &Registry{consumers: map[string]*Consumer{}, upcasters: r.upcasters}
	for _, c := range r.consumers {
		clone := *c
		clone.Patterns = slices.Clone(c.Patterns)
		clone.take(opts)
		with.consumers[clone.Name] = &clone
	}
	return with
}

// Consumers returns the registered consumers by name.
func (r *Registry) Consumers() []*Consumer {
	all := make([]*Consumer, 0, len(r.consumers))
	for _, c := range r.consumers {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *Consumer) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Consumer returns the consumer of that name, or nil.
func (r *Registry) Consumer(name string) *Consumer { return r.consumers[name] }

var nameForm = regexp.MustCompile(`^[a-z0-9]+([-_][a-z0-9]+)*$`)

func (r *Registry) add(name string, kind Kind, opts []Option, handler func(*Consumer)) {
	c := &Consumer{Name: name, Kind: kind, Ordered: true, OnDead: Hold, Timeout: 20 * time.Second, Concurrency: 4}
	if kind == KindExternal {
		c.Concurrency = 16
	}
	if r.consumers[name] != nil {
		panic(fmt.Sprintf("outbox: consumer %q is registered twice", name))
	}
	c.take(opts)
	handler(c)
	r.consumers[name] = c
}

// take applies the options, and panics on those that cannot work.
func (c *Consumer) take(opts []Option) {
	for _, o := range opts {
		o(c)
	}
	slices.Sort(c.Patterns)
	c.Patterns = slices.Compact(c.Patterns)
	switch {
	case !ValidName(c.Name):
		panic(fmt.Sprintf("outbox: consumer name %q %s", c.Name, nameRule))
	case len(c.Patterns) == 0:
		panic(fmt.Sprintf("outbox: consumer %q subscribes to nothing: give it outbox.On(…)", c.Name))
	case c.OnDead != Hold && c.OnDead != Skip:
		panic(fmt.Sprintf("outbox: consumer %q: on dead must be Hold or Skip, and is %q", c.Name, c.OnDead))
	case c.MaxAttempts < 0 || c.Timeout <= 0 || c.Concurrency < 1 || c.RetryBase < 0 || c.RetryMax < c.RetryBase:
		panic(fmt.Sprintf("outbox: consumer %q has an option that cannot work: %+v", c.Name, *c))
	}
	for _, p := range c.Patterns {
		if !ValidPattern(p) {
			panic(fmt.Sprintf("outbox: consumer %q: pattern %q %s", c.Name, p, patternRule))
		}
	}
}

const (
	nameRule    = "must be 1 to 56 of a-z 0-9 in words joined by - or _, and not relay, of which the queue is the relay's"
	patternRule = "must be a type, a prefix like cart.*, or *"
)

// ValidName reports whether a consumer can have the name.
func ValidName(name string) bool {
	return nameForm.MatchString(name) && len(name) <= 56 && DrainQueue(name) != RelayQueue
}

// ValidPattern reports whether a consumer can subscribe to it: a type, a prefix of one and a star (cart.*), or * alone.
func ValidPattern(p string) bool { return patternForm.MatchString(p) && len(p) <= MaxTypeBytes }

// covers reports whether the consumer's code takes every event that the subscribed patterns let through.
func (c *Consumer) covers(subscribed []string) bool {
	for _, p := range subscribed {
		if !slices.ContainsFunc(c.Patterns, func(own string) bool { return own == p || matches(own, p) }) {
			return false
		}
	}
	return true
}

// takes reports whether the consumer's code handles events of that type.
func (c *Consumer) takes(eventType string) bool {
	return slices.ContainsFunc(c.Patterns, func(p string) bool { return matches(p, eventType) })
}

// matches reports whether the pattern takes the type (or the narrower pattern) name.
func matches(pattern, name string) bool {
	prefix, wild := strings.CutSuffix(pattern, "*")
	return pattern == name || wild && strings.HasPrefix(name, prefix)
}

func receive[T any](reg *Registry, consumer string, it *item, attempt int) (Received[T], error) {
	e := it.event
	r := Received[T]{
		ID: e.ID, Type: e.Type, Key: e.Key, CorrelationID: e.CorrelationID,
		OccurredAt: e.OccurredAt, Position: e.Pos, Consumer: consumer, Attempt: attempt, Backfill: it.run,
	}
	if e.CausationID != nil {
		r.CausationID = *e.CausationID
	}
	if e.TraceParent != nil {
		r.TraceParent = *e.TraceParent
	}
	data, version, err := reg.upcasters.raise(e)
	if err != nil {
		return r, err
	}
	r.SchemaVersion = version
	if err := json.Unmarshal(data, &r.Data); err != nil {
		return r, fmt.Errorf("decode data of %s, version %d: %w", e.Type, version, err)
	}
	return r, nil
}

func checks[T any](reg *Registry) func(e *stored) error {
	return func(e *stored) error {
		data, err := reg.upcasters.check(e)
		if err != nil {
			return err
		}
		return strictly[T](data)
	}
}
