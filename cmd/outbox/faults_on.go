//go:build faults

package main

import (
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/faultkit"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// startFaults listens for orders to die, where the environment says so.
func startFaults(log *slog.Logger) (stop func(), err error) { return failpoint.Serve(log) }

// registerFaults adds the harness's consumers to the shop's.
func registerFaults(reg *outbox.Registry, pool *pgxpool.Pool) {
	faultkit.Register(reg, faultkit.FromEnv(pool))
}

// stripeURL is where the harness's Stripe is; empty: Stripe's own.
func stripeURL() string { return os.Getenv(faultkit.EnvStripeURL) }
