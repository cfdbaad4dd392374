package payments

import (
	"context"
	"fmt"
	"time"
)

// Charge is money that the sandbox moved.
type Charge struct {
	ID        int64
	IntentID  string
	OrderID   string
	Amount    int64
	Currency  string
	CreatedAt time.Time
}

// SetOutage begins or ends an outage, in which every call of a Provider fails with an *UnavailableError. It is kept
// in the ledger's database, so it holds for every process and over restarts.
func (s *Sandbox) SetOutage(ctx context.Context, outage bool) error {
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	if err := s.queries.SandboxSetOutage(ctx, s.pool, outage); err != nil {
		return fmt.Errorf("payments: set the sandbox's outage: %w", err)
	}
	return nil
}

// Outage reports whether there is an outage.
func (s *Sandbox) Outage(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	outage, err := s.queries.SandboxOutage(ctx, s.pool)
	if err != nil {
		return false, fmt.Errorf("payments: read the sandbox's outage: %w", err)
	}
	return outage, nil
}

// Charges lists the money that moved, oldest first. It works in an outage too: it is for people and tests.
func (s *Sandbox) Charges(ctx context.Context) ([]Charge, error) {
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	rows, err := s.queries.SandboxCharges(ctx, s.pool)
	if err != nil {
		return nil, fmt.Errorf("payments: list the sandbox's charges: %w", err)
	}
	charges := make([]Charge, len(rows))
	for i, r := range rows {
		charges[i] = Charge(r)
	}
	return charges, nil
}
