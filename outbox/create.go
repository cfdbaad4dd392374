package outbox

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// Also is what is to be done in the transaction of an operation, after it: both are committed, or neither is. Its error is the operation's.
// It must be short: while a consumer is made, or gets subscriptions, nothing is relayed.
type Also = func(ctx context.Context, tx pgx.Tx) error

// NewConsumer is a consumer that is in no code: an operator has it made while the service runs. What it does, workers find in
// workers.Config.Consumers.
type NewConsumer struct {
	Name string
	Kind Kind
	// Patterns are as in On; at least one.
	Patterns []string
	Ordered  bool
	// OnDead is Hold where it is empty.
	OnDead DeadPolicy
	Start  Start
}

// InvalidConsumerError says which fields of a consumer cannot be, as JSON pointers like /patterns/0. Nothing was changed.
type InvalidConsumerError struct{ Fields []DataProblem }

func (e *InvalidConsumerError) Error() string {
	all := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		all[i] = strings.TrimPrefix(f.Pointer, "/") + " " + f.Detail
	}
	return "outbox: consumer: " + strings.Join(all, "; ")
}

// Create makes a consumer in the database, as Engine.Register does for those of the code. A name that is in use is a *ConflictError, what cannot
// be a consumer an *InvalidConsumerError. A name that was given up may be used at once: who makes it knows of that. It is a new consumer
// then, which shares nothing with the old one, and no dedupe either.
func (o *Operator) Create(ctx context.Context, c NewConsumer, by Action, also ...Also) error {
	made, err := c.consumer()
	if err != nil {
		return err
	}
	err = o.inTx(ctx, func(tx pgx.Tx, db outboxdb.DBTX) error {
		if err := o.q.ConsumerRegisterLock(ctx, db); err != nil {
			return err
		}
		if known, err := o.q.ConsumerKnown(ctx, db, made.Name); err != nil {
			return err
		} else if known {
			return conflictf("there is a consumer %s already", made.Name)
		}
		log, err := o.q.ConsumerRegisterHead(ctx, db)
		if err != nil {
			return err
		}
		if err := register(ctx, o.q, db, made, log); err != nil {
			return err
		}
		return o.auditConsumer(ctx, tx, made.Name, "create", by, map[string]any{
			"kind": made.Kind, "patterns": made.Patterns, "ordered": made.Ordered, "on_dead": made.OnDead,
		}, also...)
	})
	if err != nil {
		return fmt.Errorf("outbox: create consumer: %w", err)
	}
	Wake()
	return nil
}

func (c NewConsumer) consumer() (*Consumer, error) {
	made := &Consumer{Name: c.Name, Kind: c.Kind, Ordered: c.Ordered, OnDead: c.OnDead, Start: c.Start}
	if made.OnDead == "" {
		made.OnDead = Hold
	}
	var wrong []DataProblem
	if !ValidName(c.Name) {
		wrong = append(wrong, DataProblem{"/name", nameRule})
	}
	if c.Kind != KindTx && c.Kind != KindExternal {
		wrong = append(wrong, DataProblem{"/kind", "must be tx or external"})
	}
	if made.OnDead != Hold && made.OnDead != Skip {
		wrong = append(wrong, DataProblem{"/on_dead", "must be hold or skip"})
	}
	var problems []DataProblem
	made.Patterns, problems = checkPatterns(c.Patterns)
	if wrong = append(wrong, problems...); len(wrong) > 0 {
		return nil, &InvalidConsumerError{wrong}
	}
	return made, nil
}

// checkPatterns returns them in order, each once.
func checkPatterns(given []string) (patterns []string, wrong []DataProblem) {
	if len(given) == 0 {
		return nil, []DataProblem{{"/patterns", "must be one event type, or a prefix like cart.*, at least"}}
	}
	for i, p := range given {
		if !ValidPattern(p) {
			wrong = append(wrong, DataProblem{"/patterns/" + strconv.Itoa(i), patternRule})
		}
	}
	patterns = slices.Clone(given)
	slices.Sort(patterns)
	return slices.Compact(patterns), wrong[:min(len(wrong), maxDataProblems)]
}

// Subscribe makes the patterns what a consumer subscribes to. A new one holds from the end of the log on, unless one that it had takes it
// in: then it goes on from there. For those that it ends the rules of Unsubscribe hold, with one exception: while events are ahead
// of the consumer, a pattern that a new one takes in is kept beside that, or they would not be delivered.
//
// Patterns that cannot be are an *InvalidConsumerError, a consumer that is not known is ErrNotFound.
func (o *Operator) Subscribe(ctx context.Context, consumer string, patterns []string, by Action, also ...Also) error {
	wanted, wrong := checkPatterns(patterns)
	if len(wrong) > 0 {
		return &InvalidConsumerError{wrong}
	}
	err := o.inTx(ctx, func(tx pgx.Tx, db outboxdb.DBTX) error {
		if err := o.q.ConsumerRegisterLock(ctx, db); err != nil {
			return err
		}
		if err := lockConsumer(ctx, tx, o.q, db, consumer); err != nil {
			return err
		}
		if _, err := o.q.ConsumerID(ctx, db, consumer); err != nil {
			return notFound("consumer", err)
		}
		log, err := o.q.ConsumerRegisterHead(ctx, db)
		if err != nil {
			return err
		}
		rows, err := o.q.ConsumerSubscriptions(ctx, db, consumer)
		if err != nil {
			return err
		}
		behind, err := o.q.ConsumerBehind(ctx, db, consumer)
		if err != nil {
			return err
		}
		had := map[string]int64{}
		var ended []string
		for _, r := range rows {
			had[r.Pattern] = r.FromPos
			takesIn := func(p string) bool { return matches(p, r.Pattern) }
			switch {
			case slices.Contains(wanted, r.Pattern):
			case behind && slices.ContainsFunc(wanted, takesIn):
				wanted = append(wanted, r.Pattern)
			default:
				ended = append(ended, r.Pattern)
			}
		}
		if err := o.unsubscribe(ctx, db, consumer, ended, wanted); err != nil {
			return err
		}
		for _, p := range wanted {
			from := log.Head
			for old, pos := range had {
				if matches(old, p) {
					from = min(from, pos)
				}
			}
			if err := o.q.ConsumerSubscribe(ctx, db, outboxdb.ConsumerSubscribeParams{Consumer: consumer, Pattern: p, FromPos: from}); err != nil {
				return err
			}
		}
		slices.Sort(wanted)
		return o.auditConsumer(ctx, tx, consumer, "subscribe", by, map[string]any{"patterns": wanted, "ended": ended}, also...)
	})
	if err != nil {
		return fmt.Errorf("outbox: subscribe: %w", err)
	}
	Wake()
	return nil
}
