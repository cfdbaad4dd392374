package webhooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// OldSecretFor is how long the secret that was there before Rotate signs along.
const OldSecretFor = 24 * time.Hour

// NewEndpoint is an endpoint to be made.
type NewEndpoint struct {
	// Name is 1 to 40 of a-z 0-9 in words joined by - or _.
	Name string
	// URL is absolute, https:// (or http:// within Options.Networks), of at most 2,000 ASCII characters, without user and fragment.
	URL string
	// Types are the event types that it is to get: types, prefixes with a star (cart.*), or * alone.
	Types []string
	// Secret is whsec_ and the base64 of 24 to 64 bytes; one of 32 random bytes is made where it is empty.
	Secret string
	// From is where in the log it begins. The zero value is the log's present end.
	From outbox.Start
}

// Change is what is to be different of an endpoint; what is nil stays.
type Change struct {
	URL   *string
	Types []string
}

// Create makes an endpoint and its consumer, and returns it with its secret, which is not to be had again. A name that exists is an
// *outbox.ConflictError, a field that cannot be an *InvalidError.
func (s *Store) Create(ctx context.Context, n NewEndpoint, by outbox.Action) (e Endpoint, secret string, err error) {
	if err := checkName(n.Name); err != nil {
		return Endpoint{}, "", err
	}
	if err := s.sender.checkURL(n.URL); err != nil {
		return Endpoint{}, "", err
	}
	if err := checkTypes(n.Types); err != nil {
		return Endpoint{}, "", err
	}
	if secret, err = givenOrNew(n.Secret); err != nil {
		return Endpoint{}, "", err
	}
	consumer := ConsumerPrefix + n.Name
	made := outbox.NewConsumer{Name: consumer, Kind: outbox.KindExternal, Patterns: n.Types, Ordered: true, Start: n.From}
	err = s.operator.Create(ctx, made, by, func(ctx context.Context, tx pgx.Tx) error {
		if err := s.q.WebhookInsert(ctx, s.db(tx), outboxdb.WebhookInsertParams{Consumer: consumer, Url: n.URL, Secret: secret}); err != nil {
			return err
		}
		return s.operator.RecordIn(ctx, tx, target(n.Name), "create", by, map[string]any{"url": shown(n.URL), "types": n.Types})
	})
	if err != nil {
		return Endpoint{}, "", failedTo("create", err)
	}
	if e, err = s.Get(ctx, n.Name); err != nil {
		return Endpoint{}, "", err
	}
	return e, secret, nil
}

// Update changes where an endpoint is and what it gets. Types are made exactly those: events of new ones come from the log's present end;
// those that are left out end, unless events of them are held or wait, which is an *outbox.ConflictError. With another URL it begins anew:
// what has failed at the old one is no failure of it. One that is disabled stays so.
func (s *Store) Update(ctx context.Context, name string, c Change, by outbox.Action) (Endpoint, error) {
	detail := map[string]any{}
	if c.URL != nil {
		if err := s.sender.checkURL(*c.URL); err != nil {
			return Endpoint{}, err
		}
		detail["url"] = shown(*c.URL)
	}
	if c.Types != nil {
		if err := checkTypes(c.Types); err != nil {
			return Endpoint{}, err
		}
		detail["types"] = c.Types
	}
	if len(detail) == 0 {
		return s.Get(ctx, name)
	}
	consumer := ConsumerPrefix + name
	setURL := func(ctx context.Context, tx pgx.Tx) error {
		if c.URL == nil {
			return nil
		}
		n, err := s.q.WebhookSetURL(ctx, s.db(tx), outboxdb.WebhookSetURLParams{Url: *c.URL, Consumer: consumer})
		return found(name, n, err)
	}
	if _, err := s.Get(ctx, name); err != nil {
		return Endpoint{}, err
	}
	var err error
	if c.Types != nil {
		err = s.operator.Subscribe(ctx, consumer, c.Types, by, setURL, func(ctx context.Context, tx pgx.Tx) error {
			return s.operator.RecordIn(ctx, tx, target(name), "change", by, detail)
		})
	} else {
		err = s.operator.Record(ctx, target(name), "change", by, detail, setURL)
	}
	if err != nil {
		return Endpoint{}, failedTo("change", err)
	}
	return s.Get(ctx, name)
}

// Remove makes the database forget an endpoint and its consumer: see outbox.Operator.Remove for what becomes of what it has not
// delivered, and when that must be forced.
func (s *Store) Remove(ctx context.Context, name string, by outbox.Action) (*outbox.Removal, error) {
	if by.Force && strings.TrimSpace(by.Reason) == "" {
		return nil, outbox.ErrReasonRequired // before it is looked for, as of any consumer
	}
	if _, err := s.Get(ctx, name); err != nil {
		return nil, err
	}
	return s.operator.Remove(ctx, ConsumerPrefix+name, by, func(ctx context.Context, tx pgx.Tx) error {
		return s.operator.RecordIn(ctx, tx, target(name), "remove", by, nil)
	})
}

// Disable stops an endpoint until Enable: nothing is sent to it. Its events wait in the log, which keeps them for it beyond its retention.
// A delivery that is under way may still arrive.
func (s *Store) Disable(ctx context.Context, name string, by outbox.Action) error {
	reason := "by " + by.Actor
	if by.Reason != "" {
		reason += ": " + by.Reason
	}
	return failedTo("disable", s.operator.Pause(ctx, ConsumerPrefix+name, by, func(ctx context.Context, tx pgx.Tx) error {
		n, err := s.q.WebhookDisable(ctx, s.db(tx), outboxdb.WebhookDisableParams{Reason: clip(reason), Consumer: ConsumerPrefix + name})
		if err := found(name, n, err); err != nil {
			return err
		}
		return s.operator.RecordIn(ctx, tx, target(name), "disable", by, nil)
	}))
}

// Enable has an endpoint go on where it was stopped, by whatever, and gives it as long as ever before it is disabled for its failures.
func (s *Store) Enable(ctx context.Context, name string, by outbox.Action) error {
	return failedTo("enable", s.operator.Resume(ctx, ConsumerPrefix+name, by, func(ctx context.Context, tx pgx.Tx) error {
		n, err := s.q.WebhookEnable(ctx, s.db(tx), ConsumerPrefix+name)
		if err := found(name, n, err); err != nil {
			return err
		}
		return s.operator.RecordIn(ctx, tx, target(name), "enable", by, nil)
	}))
}

// Rotate gives an endpoint a new secret and returns it, once. Deliveries are signed with both for OldSecretFor; one that was the old one
// at that time signs no more.
func (s *Store) Rotate(ctx context.Context, name string, by outbox.Action) (secret string, err error) {
	secret = newSecret()
	err = s.operator.Record(ctx, target(name), "rotate", by, nil, func(ctx context.Context, tx pgx.Tx) error {
		n, err := s.q.WebhookRotate(ctx, s.db(tx), outboxdb.WebhookRotateParams{Seconds: OldSecretFor.Seconds(), Secret: secret, Consumer: ConsumerPrefix + name})
		return found(name, n, err)
	})
	if err != nil {
		return "", failedTo("rotate", err)
	}
	return secret, nil
}

// Replay sends again what was relayed since then, with the same event ids, in order, before what is new of the same keys. It takes a
// reason, and is an outbox.Operator.Backfill: refused with an *outbox.ConflictError where keys are held or another is under way.
// outbox.Operator.StopBackfill ends it. Of a disabled endpoint it begins when that is enabled.
func (s *Store) Replay(ctx context.Context, name string, since time.Time, by outbox.Action) (*outbox.BackfillStatus, error) {
	if since.IsZero() {
		return nil, &InvalidError{"since", "is required"}
	}
	if strings.TrimSpace(by.Reason) == "" {
		return nil, outbox.ErrReasonRequired
	}
	if _, err := s.Get(ctx, name); err != nil {
		return nil, err
	}
	by.Force = true // that it calls the outside again is what is asked for
	return s.operator.Backfill(ctx, ConsumerPrefix+name, outbox.Backfill{From: outbox.Since(since)}, by, func(ctx context.Context, tx pgx.Tx) error {
		return s.operator.RecordIn(ctx, tx, target(name), "replay", by, map[string]any{"since": since.UTC()})
	})
}

// target is an endpoint in the audit, beside what is there of its consumer.
func target(name string) string { return "webhook " + name }

// found makes outbox.ErrNotFound of a change of no row.
func found(name string, rows int64, err error) error {
	if err == nil && rows == 0 {
		return unknown(name)
	}
	return err
}

// failedTo says what has failed, of errors that do not speak for themselves.
func failedTo(what string, err error) error {
	var conflict *outbox.ConflictError
	var own *InvalidError
	if err == nil || errors.Is(err, outbox.ErrNotFound) || errors.As(err, &conflict) || errors.As(err, &own) {
		return err
	}
	return fmt.Errorf("webhooks: %s: %w", what, err)
}

// clip shortens a reason to what its column takes.
func clip(reason string) string {
	const most = 1100
	if r := []rune(reason); len(r) > most {
		return string(r[:most])
	}
	return strings.ToValidUTF8(reason, "")
}
