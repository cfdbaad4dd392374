// Package consumers holds the reactions that ship with the shop, one file each.
package consumers

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/mail"
	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// Names of the consumers.
const (
	Billing      = shop.Billing
	WelcomeEmail = "welcome-email"
	CartHistory  = "cart-history"
	Payments     = shop.Payments
	Inventory    = "inventory"
	ReceiptEmail = "receipt-email"
)

// Mailer sends mail: *mail.Sender is one.
type Mailer interface {
	Send(ctx context.Context, m mail.Message) error
	MessageID(eventID uuid.UUID, kind string) string
}

// Deps is what the consumers work with.
type Deps struct {
	Pool     *pgxpool.Pool
	Mail     Mailer
	Payments payments.Provider
	Logger   *slog.Logger
}

// outsideTimeout bounds an attempt that calls the outside. An event whose process died in one is taken up again this and
// ten seconds later.
const outsideTimeout = 15 * time.Second

var queries = shopdb.New()

// Register adds the six consumers to the registry.
func Register(reg *outbox.Registry, deps Deps) {
	registerBilling(reg)
	registerWelcomeEmail(reg, deps)
	registerCartHistory(reg)
	registerPayments(reg, deps)
	registerInventory(reg)
	registerReceiptEmail(reg, deps)
}
