package main

import (
	"context"
)

// serveCommand is outbox serve.
type serveCommand struct {
	Role string `enum:"all,api,worker" default:"all" help:"What this process does: ${enum}."`
}

func (c serveCommand) Run(ctx context.Context) error {
	cfg, err := loadConfig()
	if err != nil {
		return err
	}
	if err := cfg.requireServe(c.Role != roleAPI); err != nil {
		return err
	}
	log := newLogger()
	pool, err := openPool(ctx, cfg.DatabaseURL, cfg.PollOnly)
	if err != nil {
		return err
	}
	s := &service{cfg: cfg, role: c.Role, log: log, pool: pool}
	if err := s.start(ctx); err != nil {
		return err
	}
	args := []any{"role", c.Role, "admin", s.admin.addr.String(), "version", version()}
	if s.api != nil {
		args = append(args, "api", s.api.addr.String())
	}
	log.Info("serving", args...)
	return s.run(ctx)
}
