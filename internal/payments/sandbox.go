package payments

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/shopdb"
)

// Sandbox is a provider with a ledger of its own, in tables that no transaction of the shop touches: like a provider
// far away, what it did stays done when the shop rolls back. It knows the names of Stripe's test payment methods.
type Sandbox struct {
	pool    *pgxpool.Pool
	queries *shopdb.Queries
}

// NewSandbox returns the sandbox whose ledger is in schema sandbox of the pool's database.
func NewSandbox(pool *pgxpool.Pool) *Sandbox { return &Sandbox{pool: pool, queries: shopdb.New()} }

var _ Provider = (*Sandbox)(nil)

// errOutage is why an UnavailableError of the sandbox came about when SetOutage asked for it.
var errOutage = errors.New("the sandbox is in an outage")

// Create makes an unconfirmed intent under the idempotency key.
func (s *Sandbox) Create(ctx context.Context, p CreateParams) (intent Intent, err error) {
	if p.IdempotencyKey == "" || p.Amount <= 0 || !currencyForm(p.Currency) {
		return intent, errors.New("payments: create needs an idempotency key, an amount above 0 and a currency")
	}
	metadata := map[string]string{"event_id": p.IdempotencyKey, "order_id": p.OrderID}
	encoded, err := json.Marshal(metadata)
	if err != nil {
		return intent, fmt.Errorf("payments: encode metadata: %w", err)
	}
	err = s.tx(ctx, "create", func(ctx context.Context, tx pgx.Tx) error {
		_, err := s.queries.SandboxIntentCreate(ctx, tx, shopdb.SandboxIntentCreateParams{
			ID:             "pi_" + strings.ReplaceAll(uuid.NewString(), "-", ""),
			IdempotencyKey: p.IdempotencyKey,
			Amount:         p.Amount,
			Currency:       p.Currency,
			Method:         p.Method,
			Metadata:       encoded,
		})
		if err != nil {
			return err
		}
		row, err := s.queries.SandboxIntentByKey(ctx, tx, p.IdempotencyKey)
		if err != nil {
			return err
		}
		var kept map[string]string
		if err := json.Unmarshal(row.Metadata, &kept); err != nil {
			return err
		}
		if row.Amount != p.Amount || row.Currency != p.Currency || row.Method != p.Method || kept["order_id"] != p.OrderID {
			return ErrKeyReused
		}
		intent = sandboxIntent(row)
		return nil
	})
	return intent, err
}

// Find asks for the intent that was made under the idempotency key.
func (s *Sandbox) Find(ctx context.Context, idempotencyKey string) (intent Intent, err error) {
	err = s.tx(ctx, "find", func(ctx context.Context, tx pgx.Tx) error {
		row, err := s.queries.SandboxIntentByKey(ctx, tx, idempotencyKey)
		intent = sandboxIntent(row)
		return err
	})
	return intent, err
}

// Get asks for an intent by its id.
func (s *Sandbox) Get(ctx context.Context, intentID string) (intent Intent, err error) {
	err = s.tx(ctx, "get", func(ctx context.Context, tx pgx.Tx) error {
		row, err := s.queries.SandboxIntentGet(ctx, tx, intentID)
		intent = sandboxIntent(row)
		return err
	})
	return intent, err
}

// Confirm charges the intent, once: whoever confirms it at the same time waits for the row and finds it settled.
func (s *Sandbox) Confirm(ctx context.Context, intentID string) (intent Intent, err error) {
	err = s.tx(ctx, "confirm", func(ctx context.Context, tx pgx.Tx) error {
		row, err := s.queries.SandboxIntentLock(ctx, tx, intentID)
		if err != nil {
			return err
		}
		intent = sandboxIntent(row)
		if intent.Status.Final() {
			return nil
		}
		intent.Status, intent.DeclineCode = judge(row.Method)
		var code *string
		if intent.DeclineCode != "" {
			code = &intent.DeclineCode
		}
		err = s.queries.SandboxIntentSettle(ctx, tx, shopdb.SandboxIntentSettleParams{
			ID: row.ID, Status: string(intent.Status), DeclineCode: code,
		})
		if err != nil || intent.Status != StatusSucceeded {
			return err
		}
		return s.queries.SandboxChargeCreate(ctx, tx, shopdb.SandboxChargeCreateParams{
			IntentID: row.ID, Amount: row.Amount, Currency: row.Currency,
		})
	})
	return intent, err
}

// Limits of one call. The server's come first, so that it ends a statement and not the client its connection.
const (
	sandboxTimeout    = 8 * time.Second
	sandboxServerSide = `SELECT set_config('lock_timeout', '3s', true), set_config('statement_timeout', '5s', true),
		set_config('idle_in_transaction_session_timeout', '10s', true)`
)

// tx runs fn in a transaction of the ledger and turns whatever goes wrong into what the caller may conclude from it.
func (s *Sandbox) tx(ctx context.Context, op string, fn func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return &UnavailableError{Op: op, Err: err}
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing

	if _, err = tx.Exec(ctx, sandboxServerSide); err == nil {
		var outage bool
		if outage, err = s.queries.SandboxOutage(ctx, tx); err == nil && outage {
			err = errOutage
		}
	}
	if err != nil {
		return &UnavailableError{Op: op, Err: err}
	}
	switch err = fn(ctx, tx); {
	case err == nil:
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNotFound
	case errors.Is(err, ErrKeyReused):
		return err
	default:
		return &UnavailableError{Op: op, Err: err} // not committed, so not done
	}
	if err = tx.Commit(ctx); err != nil {
		var refused *pgconn.PgError
		if errors.As(err, &refused) || errors.Is(err, pgx.ErrTxCommitRollback) {
			return &UnavailableError{Op: op, Err: err}
		}
		return &UnknownError{Op: op, Err: err}
	}
	return nil
}

func sandboxIntent(row shopdb.SandboxIntent) Intent {
	intent := Intent{ID: row.ID, Status: Status(row.Status), Amount: row.Amount, Currency: row.Currency}
	if row.DeclineCode != nil {
		intent.DeclineCode = *row.DeclineCode
	}
	return intent
}

func currencyForm(s string) bool {
	return len(s) == 3 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}
