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
	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	cartOpen       = "open"
	cartCheckedOut = "checked_out"
	// emptyCurrency is that of an empty cart's total.
	emptyCurrency = "EUR"
)

// cartView is a cart. Total is missing only when the lines' currencies differ.
type cartView struct {
	CartID    uuid.UUID   `json:"cart_id"`
	Status    string      `json:"status"`
	Version   int         `json:"cart_version"`
	Items     []shop.Line `json:"items"`
	Total     *shop.Money `json:"total"`
	OrderID   *uuid.UUID  `json:"order_id"`
	CreatedAt time.Time   `json:"created_at"`
}

// cartChange is the answer to a change: the cart as it is now, and the event that tells of it.
type cartChange struct {
	cartView
	EventID       uuid.UUID `json:"event_id"`
	CorrelationID string    `json:"correlation_id"`
}

// createCart has nothing to be told: it takes no body, or an empty object.
func (a *api) createCart(c echo.Context, user uuid.UUID) error {
	body, err := decodeOptionalBody(c, &struct{}{})
	if err != nil {
		return err
	}
	return a.write(c, write{caller: user.String(), body: body, work: func(ctx context.Context, tx pgx.Tx) (int, any, error) {
		cartID := newID()
		if err := a.queries.CartCreate(ctx, outbox.Later(tx), shopdb.CartCreateParams{ID: cartID, UserID: user}); err != nil {
			return 0, nil, fmt.Errorf("create a cart: %w", err)
		}
		out, err := a.changed(ctx, tx, shop.CartCreated, shop.CartChanged{CartID: cartID, UserID: user, CartVersion: 1})
		return http.StatusCreated, out, err
	}})
}

func (a *api) cart(c echo.Context, user uuid.UUID) error {
	cartID, err := pathID(c.Param("cart_id"), "cart")
	if err != nil {
		return err
	}
	var view cartView
	err = a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) (err error) {
		view, err = a.viewCart(ctx, conn, cartID, user)
		return err
	})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, view)
}

func (a *api) viewCart(ctx context.Context, db shopdb.DBTX, cartID, user uuid.UUID) (cartView, error) {
	row, err := a.queries.CartView(ctx, db, shopdb.CartViewParams{ID: cartID, UserID: user})
	if errors.Is(err, pgx.ErrNoRows) {
		return cartView{}, notFound("cart")
	}
	if err != nil {
		return cartView{}, fmt.Errorf("read the cart: %w", err)
	}
	view := cartView{
		CartID: cartID, Status: row.State, Version: int(row.Version), OrderID: row.OrderID, CreatedAt: row.CreatedAt.UTC(),
	}
	if err := json.Unmarshal(row.Lines, &view.Items); err != nil {
		return cartView{}, fmt.Errorf("read the cart's lines: %w", err)
	}
	total, err := sum(view.Items)
	switch {
	case errors.Is(err, errCurrencies):
	case err != nil:
		return cartView{}, err
	default:
		view.Total = &total
	}
	return view, nil
}

// lockCart takes the cart's row for a change to an open cart; it is held until the transaction ends.
func (a *api) lockCart(ctx context.Context, tx pgx.Tx, cartID, user uuid.UUID) error {
	state, err := a.queries.CartLock(ctx, tx, shopdb.CartLockParams{ID: cartID, UserID: user})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return notFound("cart")
	case err != nil:
		return fmt.Errorf("lock the cart: %w", err)
	case state == cartOpen:
		return nil
	}
	orderID, err := a.queries.OrderOfCart(ctx, tx, cartID)
	if err != nil {
		return fmt.Errorf("find the cart's order: %w", err)
	}
	p := conflictProblem("cart-checked-out", "the cart was checked out and does not change any more")
	p.more = map[string]any{"order_id": orderID}
	return p
}

// changed appends the event of a change and returns the answer. It comes last in the transaction.
func (a *api) changed(ctx context.Context, tx pgx.Tx, eventType string, data shop.CartChanged) (cartChange, error) {
	view, err := a.viewCart(ctx, tx, data.CartID, data.UserID)
	if err != nil {
		return cartChange{}, err
	}
	eventID, err := outbox.Append(ctx, tx, outbox.Event{Type: eventType, Key: data.CartID.String(), Data: data})
	if err != nil {
		return cartChange{}, err
	}
	return cartChange{view, eventID, outbox.CorrelationID(ctx)}, nil
}
