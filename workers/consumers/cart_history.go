package consumers

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

func registerCartHistory(reg *outbox.Registry) {
	outbox.Handle(reg, CartHistory, func(ctx context.Context, _ pgx.Tx, e outbox.Received[cartEvent]) error {
		return keepHistory(outbox.Batch(ctx), e)
	}, outbox.On("cart.*"))
}

// cartEvent is what the events of a cart have in common, and what each of them adds.
type cartEvent struct {
	CartID      uuid.UUID  `json:"cart_id"`
	CartVersion int32      `json:"cart_version"`
	Line        *shop.Line `json:"line"`
	// Of a checkout.
	OrderID uuid.UUID   `json:"order_id"`
	Lines   []shop.Line `json:"lines"`
	Total   *shop.Money `json:"total"`
}

// keepHistory writes the next row of the cart's history. An event that is not the next one is an error that names
// both versions: something before it is missing, or it was applied already.
func keepHistory(batch *pgx.Batch, e outbox.Received[cartEvent]) error {
	line, err := historyLine(e.Type, e.Data)
	if err != nil {
		return err
	}
	batch.
		Queue(shopdb.CartHistoryAppend, e.Data.CartID, e.Data.CartVersion, e.ID, e.Type, line).
		QueryRow(func(row pgx.Row) error {
			var last int32
			var added bool
			if err := row.Scan(&last, &added); err != nil {
				return fmt.Errorf("write version %d of the cart's history: %w", e.Data.CartVersion, err)
			}
			if !added {
				return &VersionGapError{CartID: e.Data.CartID, Last: int(last), Got: int(e.Data.CartVersion)}
			}
			return nil
		})
	return nil
}

// historyLine is what the history keeps of an event: its line, of a checkout the whole cart.
func historyLine(eventType string, data cartEvent) (json.RawMessage, error) {
	var line any
	switch {
	case eventType == shop.CartCheckedOut:
		line = struct {
			OrderID uuid.UUID   `json:"order_id"`
			Lines   []shop.Line `json:"lines"`
			Total   *shop.Money `json:"total"`
		}{data.OrderID, data.Lines, data.Total}
	case data.Line != nil:
		line = data.Line
	}
	return json.Marshal(line)
}

// VersionGapError says that an event of a cart does not follow the last one applied.
type VersionGapError struct {
	CartID    uuid.UUID
	Last, Got int
}

func (e *VersionGapError) Error() string {
	return fmt.Sprintf("cart %s: version %d does not follow version %d", e.CartID, e.Got, e.Last)
}
