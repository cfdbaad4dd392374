package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// webhooksCommand is outbox webhooks. It works on the database: running workers take up what it changes within seconds.
type webhooksCommand struct {
	Ls      webhooksLs      `cmd:"" default:"withargs" help:"The endpoints and how they are doing. The default."`
	Show    webhooksShow    `cmd:"" help:"One endpoint."`
	Add     webhooksAdd     `cmd:"" help:"Make an endpoint, and print its secret, this once."`
	Set     webhooksSet     `cmd:"" help:"Change where an endpoint is, or what it gets."`
	Remove  webhooksRemove  `cmd:"" help:"Forget an endpoint."`
	Enable  webhooksEnable  `cmd:"" help:"Let an endpoint that is disabled go on."`
	Disable webhooksDisable `cmd:"" help:"Send nothing to an endpoint until it is enabled; its events wait."`
	Rotate  webhooksRotate  `cmd:"" help:"Give an endpoint a new secret, and print it, this once; the old one signs along for 24 hours."`
	Test    webhooksTest    `cmd:"" help:"Send a test event to an endpoint now; exit 1 where it is not taken."`
	Replay  webhooksReplay  `cmd:"" help:"Send an endpoint again what there was since a time, with the same event ids; exit 0 when it is done."`
}

// onWebhooks gives fn the endpoints that are kept in DATABASE_URL.
func onWebhooks(ctx context.Context, fn func(*webhooks.Store, *outbox.Operator) error) error {
	cfg, err := env.ParseAs[webhookConfig]()
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	options, err := cfg.options()
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return operateOn(ctx, func(pool *pgxpool.Pool, o *outbox.Operator) error {
		err := fn(webhooks.New(pool, o, "", options), o)
		var invalid *webhooks.InvalidError
		if errors.As(err, &invalid) {
			return usage("%s %s", invalid.Field, invalid.Reason)
		}
		return err
	})
}

type webhooksLs struct {
	output
}

func (c webhooksLs) Run(ctx context.Context) error {
	return onWebhooks(ctx, func(s *webhooks.Store, _ *outbox.Operator) error {
		all, err := s.List(ctx)
		if err != nil {
			return err
		}
		t := table("WEBHOOK", "STATE", "SINCE", "URL", "TYPES")
		for _, e := range all {
			t.row(e.Name, e.State, since(e), e.URL, strings.Join(e.Types, " "))
		}
		return c.print(whole(all), func(p *printer) { p.table(t) })
	})
}

// since is since when an endpoint is not working.
func since(e webhooks.Endpoint) string {
	switch {
	case e.DisabledAt != nil:
		return e.DisabledAt.Format(time.RFC3339)
	case e.FailingSince != nil:
		return e.FailingSince.Format(time.RFC3339)
	}
	return ""
}

type webhooksShow struct {
	output
	Name string `arg:"" help:"The webhook."`
}

func (c webhooksShow) Run(ctx context.Context) error {
	return onWebhooks(ctx, func(s *webhooks.Store, _ *outbox.Operator) error {
		e, err := s.Get(ctx, c.Name)
		if err != nil {
			return err
		}
		return c.print(e, func(p *printer) { describe(p, e) })
	})
}

func describe(p *printer, e webhooks.Endpoint) {
	p.line("%s: %s", e.Name, e.State)
	p.line("url       %s", e.URL)
	p.line("types     %s", strings.Join(e.Types, " "))
	p.line("consumer  %s", e.Consumer)
	if e.FailingSince != nil {
		p.line("failing   since %s", e.FailingSince.Format(time.RFC3339))
	}
	if e.LastError != "" && e.LastAt != nil {
		p.line("last      %s, at %s", e.LastError, e.LastAt.Format(time.RFC3339))
	}
	if e.DisabledAt != nil {
		p.line("disabled  at %s: %s", e.DisabledAt.Format(time.RFC3339), e.DisabledReason)
	}
}

type webhooksAdd struct {
	by
	output
	Name        string   `arg:"" help:"What it is to be called: a-z 0-9 in words joined by - or _."`
	URL         string   `arg:"" name:"url" help:"Where events are sent: https://…"`
	Type        []string `required:"" help:"An event type that it is to get, like cart.created or cart.*; may be given again."`
	From        string   `help:"Where it begins: beginning, or a time like 2026-01-31T12:00:00Z. Default: now."`
	SecretStdin bool     `help:"Read its secret (whsec_…) from the standard input. Default: a new one is made."`
}

func (c webhooksAdd) Run(ctx context.Context) error {
	from, ok := outbox.ParseStart(c.From)
	if !ok {
		return usage("--from must be beginning, or a time like 2026-01-31T12:00:00Z, and is %q", c.From)
	}
	given := ""
	if c.SecretStdin {
		line, err := bufio.NewReader(io.LimitReader(os.Stdin, 1024)).ReadString('\n')
		if given = strings.TrimSpace(line); given == "" {
			return errors.Join(usage("--secret-stdin: there is no secret on the standard input"), ignoreEOF(err))
		}
	}
	return onWebhooks(ctx, func(s *webhooks.Store, _ *outbox.Operator) error {
		e, secret, err := s.Create(ctx, webhooks.NewEndpoint{Name: c.Name, URL: c.URL, Types: c.Type, Secret: given, From: from}, c.action(false))
		if err != nil {
			return err
		}
		return c.print(handlers.MadeWebhook{Endpoint: e, Secret: secret}, func(p *printer) {
			describe(p, e)
			p.line("secret    %s", secret)
			p.line("This is told once: give it to whoever runs the endpoint.")
		})
	})
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

type webhooksSet struct {
	by
	output
	Name string   `arg:"" help:"The webhook."`
	URL  string   `name:"url" help:"Where events are sent from now on."`
	Type []string `help:"An event type that it is to get, instead of those that it gets now; may be given again."`
}

func (c webhooksSet) Run(ctx context.Context) error {
	change := webhooks.Change{Types: c.Type}
	if c.URL != "" {
		change.URL = &c.URL
	}
	if change.URL == nil && change.Types == nil {
		return usage("--url, --type or both are required: what is to be changed")
	}
	return onWebhooks(ctx, func(s *webhooks.Store, _ *outbox.Operator) error {
		e, err := s.Update(ctx, c.Name, change, c.action(false))
		if err != nil {
			return err
		}
		return c.print(e, func(p *printer) { describe(p, e) })
	})
}

type webhooksRemove struct {
	by
	output
	Name  string `arg:"" help:"The webhook."`
	Force bool   `help:"Even if it has events left to get."`
}

func (c webhooksRemove) Run(ctx context.Context) error {
	return onWebhooks(ctx, func(s *webhooks.Store, _ *outbox.Operator) error {
		r, err := s.Remove(ctx, c.Name, c.action(c.Force))
		if err != nil {
			return err
		}
		return c.print(r, func(p *printer) {
			p.line("%s is gone: %d events ahead of it, %d in flight, %d waiting, %d dead; its letters are those of %s",
				c.Name, r.Lag, r.InFlight, r.Waiting, r.Dead, r.LettersOf)
		})
	})
}

type webhooksEnable struct {
	by
	output
	Name string `arg:"" help:"The webhook."`
}

func (c webhooksEnable) Run(ctx context.Context) error {
	return setWebhook(ctx, c.output, c.by, c.Name, (*webhooks.Store).Enable)
}

type webhooksDisable struct {
	by
	output
	Name string `arg:"" help:"The webhook."`
}

func (c webhooksDisable) Run(ctx context.Context) error {
	return setWebhook(ctx, c.output, c.by, c.Name, (*webhooks.Store).Disable)
}

func setWebhook(ctx context.Context, o output, b by, name string, set func(*webhooks.Store, context.Context, string, outbox.Action) error) error {
	return onWebhooks(ctx, func(s *webhooks.Store, _ *outbox.Operator) error {
		if err := set(s, ctx, name, b.action(false)); err != nil {
			return err
		}
		e, err := s.Get(ctx, name)
		if err != nil {
			return err
		}
		return o.print(e, func(p *printer) { p.line("%s: %s", e.Name, e.State) })
	})
}

type webhooksRotate struct {
	by
	output
	Name string `arg:"" help:"The webhook."`
}

func (c webhooksRotate) Run(ctx context.Context) error {
	return onWebhooks(ctx, func(s *webhooks.Store, _ *outbox.Operator) error {
		secret, err := s.Rotate(ctx, c.Name, c.action(false))
		if err != nil {
			return err
		}
		r := handlers.NewRotated(c.Name, secret)
		return c.print(r, func(p *printer) {
			p.line("%s", secret)
			p.line("This is told once. The old one signs along until %s.", r.OldSecretUntil.Format(time.RFC3339))
		})
	})
}

type webhooksTest struct {
	by
	output
	Name string `arg:"" help:"The webhook."`
}

func (c webhooksTest) Run(ctx context.Context) error {
	return onWebhooks(ctx, func(s *webhooks.Store, _ *outbox.Operator) error {
		r, err := s.Test(ctx, c.Name, c.action(false))
		if err != nil {
			return err
		}
		if err := c.print(r, func(p *printer) {
			if r.Error == "" && r.Status != nil {
				p.line("%s took it: status %d, after %.0f ms", c.Name, *r.Status, r.DurationMS)
			} else {
				p.line("%s did not take it: %s, after %.0f ms", c.Name, r.Error, r.DurationMS)
			}
		}); err != nil {
			return err
		}
		if r.Error != "" {
			return fmt.Errorf("webhooks: the test of %s failed: %s", c.Name, r.Error)
		}
		return nil
	})
}

type webhooksReplay struct {
	by
	output
	Name   string `arg:"" help:"The webhook."`
	Since  string `required:"" help:"From when on, a time like 2026-01-31T12:00:00Z."`
	Detach bool   `short:"d" help:"Do not wait for its end: outbox backfills show tells how far it is."`
}

func (c webhooksReplay) Run(ctx context.Context) error {
	at, err := time.Parse(time.RFC3339, c.Since)
	if err != nil || at.IsZero() {
		return usage("--since must be a time like 2026-01-31T12:00:00Z, and is %q", c.Since)
	}
	return onWebhooks(ctx, func(s *webhooks.Store, o *outbox.Operator) error {
		b, err := s.Replay(ctx, c.Name, at, c.action(false))
		if err != nil {
			return err
		}
		return c.awaitBackfill(ctx, o, b, c.Detach)
	})
}
