package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
)

const orderProcessing = "processing"

type orderView struct {
	OrderID       uuid.UUID       `json:"order_id"`
	CartID        uuid.UUID       `json:"cart_id"`
	Status        string          `json:"status"`
	Total         shop.Money      `json:"total"`
	Lines         json.RawMessage `json:"lines"`
	PaymentMethod string          `json:"payment_method"`
	FailureReason *string         `json:"failure_reason"`
	CreatedAt     time.Time       `json:"created_at"`
	SettledAt     *time.Time      `json:"settled_at"`
}

func viewOrder(o shopdb.Order) orderView {
	view := orderView{
		OrderID: o.ID, CartID: o.CartID, Status: o.Status, Total: money(o.Amount, o.Currency), Lines: o.Lines,
		PaymentMethod: o.PaymentMethod, FailureReason: o.FailureReason, CreatedAt: o.CreatedAt.UTC(),
	}
	if o.SettledAt != nil {
		at := o.SettledAt.UTC()
		view.SettledAt = &at
	}
	return view
}

// newest is before every order there will be.
var newest = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

func (a *api) orders(c echo.Context, user uuid.UUID) error {
	q := newQuery(c, "limit", "cursor")
	limit := int(q.number("limit", defaultLimit, 1, maxLimit))
	before, beforeID := newest, uuid.Max
	if cursor := q.text("cursor"); cursor != "" {
		var ok bool
		if before, beforeID, ok = parseTimeCursor(cursor); !ok {
			q.refuse("cursor", "must be the next_cursor of an earlier answer")
		}
	}
	if err := q.problem(); err != nil {
		return err
	}
	var rows []shopdb.Order
	err := a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) (err error) {
		rows, err = a.queries.OrderPage(ctx, conn, shopdb.OrderPageParams{
			UserID: user, BeforeCreatedAt: before, BeforeID: beforeID, Most: int32(limit + 1),
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("list orders: %w", err)
	}
	return c.JSON(http.StatusOK, page(rows, limit, viewOrder, func(last shopdb.Order) string { return timeCursor(last.CreatedAt, last.ID) }))
}

func (a *api) order(c echo.Context, user uuid.UUID) error {
	orderID, err := pathID(c.Param("order_id"), "order")
	if err != nil {
		return err
	}
	row, err := await(c, a.pool, awaited[shopdb.Order]{
		load: func() (row shopdb.Order, err error) {
			err = a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) (err error) {
				row, err = a.queries.OrderGet(ctx, conn, shopdb.OrderGetParams{ID: orderID, UserID: user})
				return err
			})
			return row, err
		},
		settled: func(row shopdb.Order) bool { return row.Status != orderProcessing },
		event:   func(row shopdb.Order) uuid.UUID { return row.CheckoutEventID }, consumer: shop.Payments,
		states: a.orderEnds, id: orderID,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return notFound("order")
	}
	if err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	return c.JSON(http.StatusOK, viewOrder(row))
}
