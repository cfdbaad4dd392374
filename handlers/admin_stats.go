package handlers

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// stats is how the whole is doing, as the leading relay last kept it.
func (a *admin) stats(c echo.Context) error {
	if err := newQuery(c).problem(); err != nil {
		return err
	}
	s, err := a.operator.Stats(c.Request().Context())
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, s)
}
