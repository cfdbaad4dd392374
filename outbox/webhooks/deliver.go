package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// How an endpoint's deliveries are tried. The waits after 13 failures double from 5 s to 5.7 hours, 11.4 hours in all; the 11 after that are
// 8 hours each: with 25 attempts an event becomes a dead letter after 99 hours at the earliest, about four days. An endpoint to which
// nothing gets through is tried every 8 hours at least, and so is disabled after 80 hours at most, where DisableAfter is 72: before
// anything of it dies.
const (
	maxAttempts = 25
	retryBase   = 5 * time.Second
	retryMax    = 8 * time.Hour
	// concurrency is how many keys of an endpoint one process sends at a time.
	concurrency = 8
	// spare is what an attempt has beyond the sending: for the database, and for the body of the answer.
	spare = 5 * time.Second

	// stateTime is how long it may take to note what has become of a delivery. The rescue of an attempt leaves more than that.
	stateTime = 8 * time.Second
)

// system is who disables an endpoint that nobody has disabled.
const system = "pgoutbox"

// errUnchanged says that what was to be done was done, or is not to be done any more.
var errUnchanged = errors.New("webhooks: nothing to change")

// deliver sends an event to the endpoint whose consumer it comes to.
func (s *Store) deliver(ctx context.Context, e outbox.Received[json.RawMessage]) (record func(context.Context, pgx.Tx) error, err error) {
	to, err := s.q.WebhookForDelivery(ctx, s.db(s.pool), e.Consumer)
	if err != nil { // the database is away, or the endpoint was removed just now: neither is a failure of the endpoint
		return nil, &outbox.RetryLaterError{After: time.Second, Err: fmt.Errorf("webhooks: read the endpoint: %w", err)}
	}
	body, err := encode(e, s.o.Source)
	if err != nil {
		return nil, err
	}
	status, err := s.sender.send(ctx, message{url: to.Url, id: e.ID.String(), body: body, secrets: secrets(to)})
	var f *failure
	switch {
	case err == nil:
		if to.Failed {
			s.recovered(ctx, e.Consumer, to.Url, status)
		}
		return nil, nil
	case !errors.As(err, &f):
		return nil, &outbox.RetryLaterError{After: time.Second, Err: err}
	}
	s.failed(ctx, e.Consumer, to.Url, f)
	// A wait that the endpoint asks for spends no attempt: so this must not go on for ever.
	if f.retryAfter > 0 && e.Attempt < maxAttempts {
		return nil, &outbox.RetryLaterError{After: f.retryAfter, Err: f}
	}
	return nil, f
}

func secrets(to outboxdb.WebhookForDeliveryRow) []string {
	if to.OldSecret == "" {
		return []string{to.Secret}
	}
	return []string{to.Secret, to.OldSecret}
}

// recovered notes the first success after a failure. If that is not to be had, the next one does.
func (s *Store) recovered(ctx context.Context, consumer, url string, status int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stateTime)
	defer cancel()
	n, err := s.q.WebhookDelivered(ctx, s.db(s.pool), outboxdb.WebhookDeliveredParams{LastStatus: int16(status), Consumer: consumer, Url: url})
	switch {
	case err != nil:
		s.o.Logger.WarnContext(ctx, "webhook: note that it works again", "consumer", consumer, "error", err)
	case n > 0:
		s.o.Logger.InfoContext(ctx, "webhook works again", "consumer", consumer, "status", status)
	}
}

// failed notes a failure, and disables the endpoint if it was the last one that it may have.
func (s *Store) failed(ctx context.Context, consumer, url string, f *failure) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stateTime)
	defer cancel()
	arg := outboxdb.WebhookFailedParams{LastError: f.class, Consumer: consumer, Url: url, Seconds: s.o.DisableAfter.Seconds()}
	if f.status != 0 {
		status := int16(f.status)
		arg.LastStatus = &status
	}
	now, err := s.q.WebhookFailed(ctx, s.db(s.pool), arg)
	gone := f.status == http.StatusGone
	switch {
	case errors.Is(err, pgx.ErrNoRows): // it has another URL now, or is gone
		return
	case err != nil:
	case gone:
		err = s.disable(ctx, consumer, url, "it answered 410: it is gone", true)
	case now.TooLong:
		err = s.disable(ctx, consumer, url, "nothing but failures since "+now.Since.UTC().Format(time.RFC3339)+", the last: "+f.class, false)
	case now.First:
		s.o.Logger.WarnContext(ctx, "webhook begins to fail", "consumer", consumer, "error", f.class)
	}
	if err != nil { // the next failure tries again
		s.o.Logger.ErrorContext(ctx, "webhook: note a failure", "consumer", consumer, "error", err)
	}
}

// disable stops an endpoint, once, whoever else is about to.
func (s *Store) disable(ctx context.Context, consumer, url, reason string, atOnce bool) error {
	err := s.operator.Pause(ctx, consumer, outbox.Action{Actor: system, Reason: reason}, func(ctx context.Context, tx pgx.Tx) error {
		n, err := s.q.WebhookDisableFailing(ctx, s.db(tx), outboxdb.WebhookDisableFailingParams{
			Reason: reason, Consumer: consumer, Url: url, Seconds: s.o.DisableAfter.Seconds(), AtOnce: atOnce,
		})
		switch {
		case err != nil:
			return err
		case n == 0:
			return errUnchanged
		}
		return s.operator.RecordIn(ctx, tx, target(nameOf(consumer)), "disable", outbox.Action{Actor: system, Reason: reason}, nil)
	})
	switch {
	case errors.Is(err, errUnchanged):
		return nil
	case err != nil:
		return err
	}
	s.o.Logger.ErrorContext(ctx, "webhook disabled", "consumer", consumer, "reason", reason)
	return nil
}

// Result is what became of a Test.
type Result struct {
	// Status is the answer's, null where there was none.
	Status     *int    `json:"status"`
	DurationMS float64 `json:"duration_ms"`
	// Error says why it did not succeed, as in LastError of an endpoint; it is empty where it did.
	Error string `json:"error,omitempty"`
}

// TestType is the type of the events that Test sends.
const TestType = "pgoutbox.test"

// Test sends an event of TestType to an endpoint now, past all others, from this process. It is in no log, has no position, is tried once, and
// changes nothing about the endpoint's state, which may be any.
func (s *Store) Test(ctx context.Context, name string, by outbox.Action) (Result, error) {
	consumer := ConsumerPrefix + name
	to, err := s.q.WebhookForDelivery(ctx, s.db(s.pool), consumer)
	if errors.Is(err, pgx.ErrNoRows) {
		return Result{}, unknown(name)
	} else if err != nil {
		return Result{}, fmt.Errorf("webhooks: read the endpoint: %w", err)
	}
	if err := s.operator.Record(ctx, target(name), "test", by, nil); err != nil {
		return Result{}, failedTo("test", err)
	}
	id := uuid.Must(uuid.NewV7())
	body, err := encode(outbox.Received[json.RawMessage]{
		ID: id, Type: TestType, Key: name, Data: json.RawMessage(`{"test":true}`), CorrelationID: id.String(), SchemaVersion: 1, OccurredAt: time.Now(),
	}, s.o.Source)
	if err != nil {
		return Result{}, err
	}
	began := time.Now()
	status, err := s.sender.send(ctx, message{url: to.Url, id: id.String(), body: body, secrets: secrets(to)})
	r := Result{DurationMS: float64(time.Since(began).Microseconds()) / 1000}
	var f *failure
	switch {
	case errors.As(err, &f):
		r.Error = f.class
	case err != nil:
		return Result{}, err
	}
	if status != 0 {
		r.Status = &status
	}
	return r, nil
}
