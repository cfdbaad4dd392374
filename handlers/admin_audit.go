package handlers

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// audit is what operators did, by whom and why.
func (a *admin) audit(c echo.Context) error {
	q := newQuery(c, "actor", "action", "target", "limit", "cursor")
	f := outbox.AuditFilter{Actor: q.text("actor"), Action: q.text("action"), Target: q.text("target")}
	limit, before := q.number("limit", 50, 1, 100), q.number("cursor", 0, 1, 1<<62)
	if err := q.problem(); err != nil {
		return err
	}
	items, err := a.operator.Audit(c.Request().Context(), f, before, int(limit)+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, AuditPage(items, int(limit)))
}
