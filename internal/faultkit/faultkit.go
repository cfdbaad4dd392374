// Package faultkit is what the service's binary and the fault harness have in common: the harness's tables, its events, and the
// consumers of them, which run beside the shop's in a build with the tag faults. Their effects are rows that nothing keeps
// from being written twice, or out of order, but the engine.
package faultkit

import (
	"context"
	_ "embed"
	"os"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// Schema makes the harness's tables, in a database that has the service's. It may be run again.
//
//go:embed schema.sql
var Schema string

// Types of events.
const (
	Noted   = "fault.noted"   // Ledger, LedgerSet, Newcomer
	Sent    = "fault.sent"    // LedgerOutside
	Fanned  = "fault.fanned"  // Fanout
	Trouble = "fault.trouble" // Troubled
	Renewed = "fault.renewed" // Newcomer
)

// Names of consumers.
const (
	Ledger        = "ledger"
	LedgerSet     = "ledger-set"
	LedgerOutside = "ledger-outside"
	Fanout        = "fanout"
	Troubled      = "trouble"
	Newcomer      = "newcomer"
)

// The environment of a binary with the tag faults. See also failpoint.EnvAddr.
const (
	// EnvOutsideURL is what LedgerOutside posts to.
	EnvOutsideURL = "OUTBOX_FAULTS_OUTSIDE_URL"
	// EnvDir is where processes that are to crash count how often they did.
	EnvDir = "OUTBOX_FAULTS_DIR"
	// EnvNext is 1 in the next build of a rolling deploy: Newcomer is registered, and one more migration known.
	EnvNext = "OUTBOX_FAULTS_NEXT"
	// EnvControl is NoDedupe for a consumer that the harness must find out.
	EnvControl = "OUTBOX_FAULTS_CONTROL"
	// EnvStripeURL is the base URL of the API that stands in for Stripe's.
	EnvStripeURL = "OUTBOX_FAULTS_STRIPE_URL"
)

// NoDedupe has Ledger write through the pool, outside of the transaction that records the event as processed.
const NoDedupe = "no-dedupe"

// Payload is the data of every event.
type Payload struct {
	// N is drawn in the order of the commits of a key; 0: the event has no place in that order.
	N int64 `json:"n"`
	// From is the event that this one was appended for.
	From *uuid.UUID `json:"from,omitempty"`
	// Do, Times and MS are for Troubled.
	Do    Deed `json:"do,omitempty"`
	Times int  `json:"times,omitempty"`
	MS    int  `json:"ms,omitempty"`
}

// Deps is what the consumers work with.
type Deps struct {
	Pool *pgxpool.Pool
	// OutsideURL, Dir, Next and Control are the values of the variables of these names.
	OutsideURL string
	Dir        string
	Next       bool
	Control    string
}

// FromEnv returns what the environment says.
func FromEnv(pool *pgxpool.Pool) Deps {
	return Deps{
		Pool: pool, OutsideURL: os.Getenv(EnvOutsideURL), Dir: os.Getenv(EnvDir), Next: os.Getenv(EnvNext) == "1",
		Control: os.Getenv(EnvControl),
	}
}

// Register adds the harness's consumers to the registry.
func Register(reg *outbox.Registry, deps Deps) {
	registerLedgers(reg, deps)
	registerOutside(reg, deps)
	registerFanout(reg)
	registerTrouble(reg, deps)
	if deps.Next {
		outbox.Handle(reg, Newcomer, func(ctx context.Context, _ pgx.Tx, e outbox.Received[Payload]) error {
			note(outbox.Batch(ctx), e)
			return nil
		}, outbox.On(Noted, Renewed), outbox.StartFrom(outbox.Now))
	}
}
