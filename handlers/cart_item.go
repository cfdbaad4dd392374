package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

type itemRequest struct {
	SKU      string `json:"sku"`
	Quantity *int   `json:"quantity"`
}

// addItem adds to what the cart holds of the product. The event's line has the quantity that came, not the sum.
func (a *api) addItem(c echo.Context, user uuid.UUID) error {
	cartID, err := pathID(c.Param("cart_id"), "cart")
	if err != nil {
		return err
	}
	var in itemRequest
	body, err := decodeBody(c, &in)
	if err != nil {
		return err
	}
	var v collector
	v.sku("/sku", in.SKU)
	v.quantity("/quantity", in.Quantity)
	if err := v.problem(); err != nil {
		return err
	}
	return a.write(c, write{
		caller: user.String(), resource: cartID.String(), body: body,
		work: func(ctx context.Context, tx pgx.Tx) (int, any, error) {
			if err := a.lockCart(ctx, tx, cartID, user); err != nil {
				return 0, nil, err
			}
			line, err := a.placeItem(ctx, tx, cartID, in.SKU, *in.Quantity)
			if err != nil {
				return 0, nil, err
			}
			out, err := a.bump(ctx, tx, shop.CartItemAdded, cartID, user, line)
			return http.StatusOK, out, err
		},
	})
}

// placeItem puts a product into a cart that is locked.
func (a *api) placeItem(ctx context.Context, tx pgx.Tx, cartID uuid.UUID, sku string, quantity int) (shop.Line, error) {
	place, err := a.queries.CartItemPlace(ctx, tx, shopdb.CartItemPlaceParams{CartID: cartID, Sku: sku})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return shop.Line{}, invalid("/sku", unknownSKU)
	case err != nil:
		return shop.Line{}, fmt.Errorf("find the product: %w", err)
	case int(place.Quantity)+quantity > maxQuantity:
		return shop.Line{}, invalid("/quantity", fmt.Sprintf("makes more than %d of this product in the cart", maxQuantity))
	case place.Others >= maxLines:
		return shop.Line{}, invalid("/sku", fmt.Sprintf("makes more than %d different products in the cart", maxLines))
	}
	err = a.queries.CartItemAdd(ctx, outbox.Later(tx), shopdb.CartItemAddParams{CartID: cartID, Sku: sku, Quantity: int32(quantity)})
	if err != nil {
		return shop.Line{}, fmt.Errorf("add to the cart: %w", err)
	}
	return shop.Line{SKU: sku, Name: place.Name, Quantity: quantity, UnitPrice: money(place.Price, place.Currency)}, nil
}

// removeItem takes the whole line out.
func (a *api) removeItem(c echo.Context, user uuid.UUID) error {
	cartID, err := pathID(c.Param("cart_id"), "cart")
	if err != nil {
		return err
	}
	sku := c.Param("sku")
	if !skuForm.MatchString(sku) {
		return notFound("item in this cart")
	}
	return a.change(c, func(ctx context.Context, tx pgx.Tx) (int, any, error) {
		if err := a.lockCart(ctx, tx, cartID, user); err != nil {
			return 0, nil, err
		}
		removed, err := a.queries.CartItemRemove(ctx, tx, shopdb.CartItemRemoveParams{CartID: cartID, Sku: sku})
		if errors.Is(err, pgx.ErrNoRows) {
			return 0, nil, notFound("item in this cart")
		}
		if err != nil {
			return 0, nil, fmt.Errorf("remove from the cart: %w", err)
		}
		out, err := a.bump(ctx, tx, shop.CartItemRemoved, cartID, user, shop.Line{
			SKU: sku, Name: removed.Name, Quantity: int(removed.Quantity), UnitPrice: money(removed.Price, removed.Currency),
		})
		return http.StatusOK, out, err
	})
}

// bump gives the change of a locked cart its version and its event.
func (a *api) bump(ctx context.Context, tx pgx.Tx, eventType string, cartID, user uuid.UUID, line shop.Line) (cartChange, error) {
	version, err := a.queries.CartBump(ctx, tx, cartID)
	if err != nil {
		return cartChange{}, fmt.Errorf("bump the cart's version: %w", err)
	}
	return a.changed(ctx, tx, eventType, shop.CartChanged{CartID: cartID, UserID: user, CartVersion: int(version), Line: &line})
}
