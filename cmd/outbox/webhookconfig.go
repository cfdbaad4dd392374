package main

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// webhookConfig is the part of the environment that has to do with webhooks, which commands read, too.
type webhookConfig struct {
	// Networks are addresses that endpoints may have beyond public ones: CIDR,…
	Networks     string        `env:"OUTBOX_WEBHOOK_NETWORKS"`
	DisableAfter time.Duration `env:"OUTBOX_WEBHOOK_DISABLE_AFTER" envDefault:"72h"`
	Source       string        `env:"OUTBOX_WEBHOOK_SOURCE" envDefault:"urn:pgoutbox"`
}

// options refuses what cannot work, naming the variable.
func (c webhookConfig) options() (o webhooks.Options, err error) {
	o.DisableAfter, o.Source = c.DisableAfter, c.Source
	var wrong []error
	if o.Networks, err = networksOf("OUTBOX_WEBHOOK_NETWORKS", c.Networks); err != nil {
		wrong = append(wrong, err)
	}
	if c.DisableAfter < time.Minute {
		wrong = append(wrong, errors.New("OUTBOX_WEBHOOK_DISABLE_AFTER must be a duration of a minute or more, like 72h"))
	}
	// A URI reference, as CloudEvents have it.
	if u, err := url.Parse(c.Source); err != nil || c.Source == "" || u.User != nil || strings.ContainsFunc(c.Source, func(r rune) bool { return r <= ' ' || r > '~' }) {
		wrong = append(wrong, errors.New("OUTBOX_WEBHOOK_SOURCE must be a URI, like https://shop.example/events, without a user"))
	}
	return o, errors.Join(wrong...)
}
