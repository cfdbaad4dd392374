package handlers

import (
	"context"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
)

type productView struct {
	SKU       string     `json:"sku"`
	Name      string     `json:"name"`
	Price     shop.Money `json:"price"`
	Available int        `json:"available"`
}

// products is for everybody, like a shop's window.
func (a *api) products(c echo.Context) error {
	q := newQuery(c, "limit", "cursor")
	limit := int(q.number("limit", defaultLimit, 1, maxLimit))
	after, err := cursorEncoding.DecodeString(q.text("cursor"))
	if err != nil || len(after) > 0 && !skuForm.Match(after) {
		q.refuse("cursor", "must be the next_cursor of an earlier answer")
	}
	if err := q.problem(); err != nil {
		return err
	}
	var rows []shopdb.ProductPageRow
	err = a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) (err error) {
		rows, err = a.queries.ProductPage(ctx, conn, shopdb.ProductPageParams{After: string(after), Most: int32(limit + 1)})
		return err
	})
	if err != nil {
		return fmt.Errorf("list products: %w", err)
	}
	return c.JSON(http.StatusOK, page(rows, limit,
		func(r shopdb.ProductPageRow) productView {
			return productView{r.Sku, r.Name, money(r.Price, r.Currency), int(r.Available)}
		},
		func(last shopdb.ProductPageRow) string { return cursorEncoding.EncodeToString([]byte(last.Sku)) },
	))
}
