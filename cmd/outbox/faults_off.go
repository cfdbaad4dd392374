//go:build !faults

package main

import (
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// What the fault harness needs of the binary is in a build with the tag faults alone.

func startFaults(*slog.Logger) (stop func(), err error) { return func() {}, nil }

func registerFaults(*outbox.Registry, *pgxpool.Pool) {}

// stripeURL is empty: Stripe's own.
func stripeURL() string { return "" }
