package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/mailsink"
	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/postgres"
	"github.com/pgoutbox/pgoutbox/migrations"
)

// devCommand is outbox dev: the whole service on one machine, on loopback only.
type devCommand struct {
	Fresh bool   `help:"Wipe the private PostgreSQL and the mail sink first."`
	Data  string `default:".data" help:"Where the private PostgreSQL, the mails and the admin token are kept."`
}

func (c devCommand) Run(ctx context.Context) (err error) {
	cfg, err := loadConfig()
	if err != nil {
		return err
	}
	if c.Fresh && cfg.DatabaseURL != "" {
		return errors.New("--fresh wipes the private PostgreSQL; with DATABASE_URL set there is none, and that database is left alone")
	}
	if cfg.PollOnly && cfg.DatabaseURL != "" {
		return errNoSession
	}
	if cfg.LogDeliveries = "all"; os.Getenv("OUTBOX_LOG_DELIVERIES") != "" {
		cfg.LogDeliveries = os.Getenv("OUTBOX_LOG_DELIVERIES")
	}
	if cfg.RateLimits == "" {
		cfg.RateLimits = "off" // whoever tries things out does so from one address
	}
	if os.Getenv("OUTBOX_WEBHOOK_NETWORKS") == "" {
		cfg.Webhooks.Networks = "127.0.0.0/8,::1/128" // whoever tries it has a receiver on this machine
	}
	if err := cfg.onLoopback(); err != nil {
		return err
	}
	if c.Data, err = filepath.Abs(c.Data); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	log := newLogger()

	var server *postgres.Server
	died := make(<-chan struct{})
	if cfg.DatabaseURL == "" {
		if server, err = postgres.Start(ctx, postgres.Config{DataDir: c.database(), Fsync: true}); err != nil {
			return err
		}
		defer func() {
			stop, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			err = errors.Join(err, server.Stop(stop))
		}()
		cfg.DatabaseURL, died = server.URL(postgres.Database), server.Done()
	}
	if err := migrations.Up(ctx, cfg.DatabaseURL, migrations.Options{Shop: true}); err != nil {
		return err
	}
	sink, err := mailsink.Start(ctx, filepath.Join(c.Data, "mail"), log)
	if err != nil {
		return err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = errors.Join(err, sink.Close(stop))
	}()
	if cfg.SMTPURL == "" {
		cfg.SMTPURL = sink.URL()
	}
	if cfg.Payments == "" {
		cfg.Payments = "sandbox"
	}
	if cfg.AdminTokens == "" {
		if cfg.AdminTokens, err = c.adminToken(); err != nil {
			return err
		}
	}
	pool, err := openPool(ctx, cfg.DatabaseURL, cfg.PollOnly)
	if err != nil {
		return err
	}
	s := &service{cfg: cfg, role: roleAll, log: log, pool: pool, dev: &handlers.DevTools{
		Mail: sink, Payments: payments.NewSandbox(pool),
	}}
	if err := s.start(ctx); err != nil {
		return err
	}
	c.greet(s)

	// Without its database the service cannot go on, and the private one has nobody else to start it.
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-died:
			cancel(errDatabaseDied)
		case <-running.Done():
		}
	}()
	err = s.run(running)
	if errors.Is(context.Cause(running), errDatabaseDied) {
		err = errors.Join(err, fmt.Errorf("%w: see %s", errDatabaseDied, filepath.Join(c.database(), "postgres.log")), server.Err())
	}
	return err
}

var errDatabaseDied = errors.New("the private PostgreSQL died")

func (c devCommand) database() string { return filepath.Join(c.Data, "postgres") }

// prepare makes the data folder, and empties it with --fresh. The admin token stays: scripts have it.
func (c devCommand) prepare() error {
	if c.Fresh {
		if err := postgres.Remove(c.database()); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(c.Data, "mail")); err != nil {
			return fmt.Errorf("wipe the mail sink: %w", err)
		}
	}
	if err := os.MkdirAll(c.Data, 0o755); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	return nil
}

// adminToken is made up once and kept.
func (c devCommand) adminToken() (string, error) {
	path := filepath.Join(c.Data, "admin-token")
	kept, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(kept))) >= 8 {
		return "dev:" + strings.TrimSpace(string(kept)), nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the admin token: %w", err)
	}
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("make an admin token: %w", err)
	}
	token := hex.EncodeToString(random)
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the admin token: %w", err)
	}
	return "dev:" + token, nil
}

// onLoopback keeps dev off the network: it is full of switches that break things on purpose. A default port that is
// taken gives way to a free one; one that was asked for does not.
func (c *config) onLoopback() error {
	for _, a := range []struct {
		name string
		addr *string
	}{{"OUTBOX_ADDR", &c.Addr}, {"OUTBOX_ADMIN_ADDR", &c.AdminAddr}} {
		host, port, err := net.SplitHostPort(*a.addr)
		if err != nil {
			return fmt.Errorf("configuration: %s: %w", a.name, err)
		}
		if ip := net.ParseIP(host); host == "" || host == "localhost" {
			host = "127.0.0.1"
		} else if ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("configuration: %s: dev listens on loopback only, not on %s", a.name, host)
		}
		if os.Getenv(a.name) == "" && taken(net.JoinHostPort(host, port)) {
			port = "0"
		}
		*a.addr = net.JoinHostPort(host, port)
	}
	return nil
}

func taken(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return true
	}
	_ = l.Close()
	return false
}

// greet says where everything is, and what to try.
func (c devCommand) greet(s *service) {
	_, token, _ := strings.Cut(strings.Split(s.cfg.AdminTokens, ",")[0], ":")
	token = strings.TrimSpace(token)
	api, admin := "http://"+s.api.addr.String(), "http://"+s.admin.addr.String()
	fmt.Printf(`api URL       %[1]s
admin URL     %[2]s
mail URL      %[1]s/dev/mail
docs URL      %[1]s/docs
database URL  %[3]s
admin token   %[4]s

Try:
  curl -s %[1]s/v1/signup -H 'Content-Type: application/json' -d '{"email":"ada@example.com","password":"correct horse battery","name":"Ada"}'
  curl -s %[1]s/dev/mail
  curl -s %[2]s/admin/consumers -H 'Authorization: Bearer %[4]s'

The admin URL has pages, too, to sign in to with the admin token.
Ctrl-C stops all of it.
`, api, admin, s.cfg.DatabaseURL, token)
}
