package pages

import (
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// event is one event with its data and what became of it at each consumer.
func (p *Pages) event(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return outbox.ErrNotFound
	}
	e, err := p.operator.Event(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return p.render(c, http.StatusOK, "event", "Event "+e.Type, e)
}
