package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caarlos0/env/v11"

	"github.com/pgoutbox/pgoutbox/internal/ratelimit"
	"github.com/pgoutbox/pgoutbox/internal/telemetry"
)

// config is the environment of serve and dev. The README has the same table.
type config struct {
	DatabaseURL string `env:"DATABASE_URL"`
	// PollOnly says that DATABASE_URL leads through a pooler that gives a connection per transaction.
	PollOnly  bool   `env:"OUTBOX_POLL_ONLY"`
	Addr      string `env:"OUTBOX_ADDR"       envDefault:":8080"`
	AdminAddr string `env:"OUTBOX_ADMIN_ADDR" envDefault:"127.0.0.1:8081"`
	// AdminTokens is name:token,…; none: there are no admin routes.
	AdminTokens string        `env:"OUTBOX_ADMIN_TOKENS"`
	MaxAttempts int           `env:"OUTBOX_MAX_ATTEMPTS"   envDefault:"25"`
	RetryBase   time.Duration `env:"OUTBOX_RETRY_BASE"     envDefault:"1s"`
	RetryMax    time.Duration `env:"OUTBOX_RETRY_MAX"      envDefault:"1h"`
	Retention   time.Duration `env:"OUTBOX_RETENTION"      envDefault:"720h"`
	// AdmissionMaxAge is how old the oldest event that waits may be while new work is taken; 0: that is never refused.
	AdmissionMaxAge time.Duration `env:"OUTBOX_ADMISSION_MAX_AGE" envDefault:"0"`
	// MaxConnections is how many connections of clients the API has open at most; 0: what the limit of open files allows.
	MaxConnections int    `env:"OUTBOX_MAX_CONNECTIONS" envDefault:"0"`
	LogDeliveries  string `env:"OUTBOX_LOG_DELIVERIES"  envDefault:"failures"`
	// RateLimits is off, or a list of limits; what it does not name has its default.
	RateLimits string `env:"OUTBOX_RATE_LIMITS"`
	// TrustedProxies are addresses and networks whose X-Forwarded-For is believed; none: nobody's is.
	TrustedProxies string `env:"OUTBOX_TRUSTED_PROXIES"`

	Webhooks webhookConfig

	SMTPURL         string `env:"SMTP_URL"`
	Payments        string `env:"OUTBOX_PAYMENTS"`
	StripeSecretKey string `env:"STRIPE_SECRET_KEY"`
	// StripeWebhookSecret is one secret, or several with commas between them, while one is replaced by the next.
	StripeWebhookSecret string `env:"STRIPE_WEBHOOK_SECRET"`
}

// loadConfig reads the environment and refuses what cannot work, naming the variable.
func loadConfig() (config, error) {
	var c config
	if err := env.Parse(&c); err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	var wrong []error
	if c.MaxAttempts < 1 || c.MaxAttempts > 1000 {
		wrong = append(wrong, errors.New("OUTBOX_MAX_ATTEMPTS must be 1 to 1000"))
	}
	if c.RetryBase <= 0 {
		wrong = append(wrong, errors.New("OUTBOX_RETRY_BASE must be a duration above 0, like 1s"))
	}
	if c.RetryMax < c.RetryBase {
		wrong = append(wrong, errors.New("OUTBOX_RETRY_MAX must not be below OUTBOX_RETRY_BASE"))
	}
	if c.Retention < time.Hour && c.Retention >= 0 {
		wrong = append(wrong, errors.New("OUTBOX_RETENTION must be an hour or more, or negative to keep everything"))
	}
	if c.AdmissionMaxAge != 0 && c.AdmissionMaxAge < time.Second {
		wrong = append(wrong, errors.New("OUTBOX_ADMISSION_MAX_AGE must be 1s or more, or 0 to refuse nothing"))
	}
	if c.MaxConnections < 0 || c.MaxConnections > 0 && c.MaxConnections < leastConnections {
		wrong = append(wrong, fmt.Errorf("OUTBOX_MAX_CONNECTIONS must be %d or more, or 0 for what the limit of open files allows", leastConnections))
	}
	if c.LogDeliveries != "failures" && c.LogDeliveries != "all" {
		wrong = append(wrong, errors.New("OUTBOX_LOG_DELIVERIES must be failures or all"))
	}
	if _, err := c.rateLimits(); err != nil {
		wrong = append(wrong, err)
	}
	if _, err := c.trustedProxies(); err != nil {
		wrong = append(wrong, err)
	}
	if _, err := c.adminTokens(); err != nil {
		wrong = append(wrong, err)
	}
	if _, err := c.Webhooks.options(); err != nil {
		wrong = append(wrong, err)
	}
	if err := telemetry.Check(); err != nil {
		wrong = append(wrong, err)
	}
	if c.DatabaseURL != "" {
		if _, err := poolConfig(c.DatabaseURL, c.PollOnly); err != nil {
			wrong = append(wrong, err)
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	return c, nil
}

// requireServe refuses a serve without what it must not do without: an empty variable must not sell for nothing.
func (c config) requireServe(worker bool) error {
	var missing []error
	if c.DatabaseURL == "" {
		missing = append(missing, errNoDatabase)
	}
	if worker && c.SMTPURL == "" {
		missing = append(missing, errors.New("SMTP_URL is required: smtp://user:password@host:587?from=shop@example.com"))
	}
	switch {
	case c.Payments == "stripe" && c.StripeSecretKey == "":
		missing = append(missing, errors.New("STRIPE_SECRET_KEY is required with OUTBOX_PAYMENTS=stripe"))
	case c.Payments != "stripe" && c.Payments != "sandbox":
		missing = append(missing, errors.New("OUTBOX_PAYMENTS is required: stripe, or sandbox, where nobody pays"))
	}
	if err := errors.Join(missing...); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// webhookSecrets are what a webhook may be signed with.
func (c config) webhookSecrets() (secrets []string) {
	for secret := range strings.SplitSeq(c.StripeWebhookSecret, ",") {
		if secret = strings.TrimSpace(secret); secret != "" {
			secrets = append(secrets, secret)
		}
	}
	return secrets
}

// adminTokens are the operators' tokens, by token; the value is the actor's name.
func (c config) adminTokens() (map[string]string, error) {
	tokens := map[string]string{}
	for entry := range strings.SplitSeq(c.AdminTokens, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		name, token, ok := strings.Cut(entry, ":")
		name, token = strings.TrimSpace(name), strings.TrimSpace(token)
		if !ok || name == "" || len(token) < 8 {
			return nil, errors.New("OUTBOX_ADMIN_TOKENS must be name:token,… with tokens of 8 characters or more")
		}
		// The audit has to take the name, and a header the token: else its owner finds out too late.
		if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
			return nil, errors.New("OUTBOX_ADMIN_TOKENS has a name that is no text")
		}
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, errors.New("OUTBOX_ADMIN_TOKENS has a token with blanks, or with other than ASCII characters")
		}
		if tokens[token] != "" {
			return nil, errors.New("OUTBOX_ADMIN_TOKENS gives two names the same token")
		}
		tokens[token] = name
	}
	return tokens, nil
}

func (c config) rateLimits() (ratelimit.Limits, error) {
	limits, err := ratelimit.Parse(c.RateLimits)
	if err != nil {
		return nil, fmt.Errorf("OUTBOX_RATE_LIMITS: %w", err)
	}
	return limits, nil
}

// databaseConfig is for the commands that need nothing else.
func databaseConfig() (url string, pollOnly bool, err error) {
	c, err := env.ParseAs[struct {
		DatabaseURL string `env:"DATABASE_URL"`
		PollOnly    bool   `env:"OUTBOX_POLL_ONLY"`
	}]()
	if err != nil {
		return "", false, fmt.Errorf("configuration: %w", err)
	}
	if c.DatabaseURL == "" {
		return "", false, errNoDatabase
	}
	_, err = poolConfig(c.DatabaseURL, c.PollOnly)
	return c.DatabaseURL, c.PollOnly, err
}

// sessionURL is for migrations: their lock belongs to a session, which a pooler gives to nobody.
func sessionURL() (string, error) {
	url, pollOnly, err := databaseConfig()
	if err == nil && pollOnly {
		err = errNoSession
	}
	return url, err
}

var (
	errNoDatabase = errors.New("DATABASE_URL is required: postgres://user:password@host:5432/database")
	errNoSession  = errors.New("migrations need PostgreSQL itself: set DATABASE_URL to it, and not OUTBOX_POLL_ONLY")
)
