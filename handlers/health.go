package handlers

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

const readyTimeout = 2 * time.Second

type health struct {
	ready func(ctx context.Context) error
}

// alive answers as long as the process can answer at all: what is broken outside of it is no reason to restart it.
func (health) alive(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
}

func (h health) readiness(c echo.Context) error {
	if h.ready != nil {
		ctx, cancel := context.WithTimeout(c.Request().Context(), readyTimeout)
		defer cancel()
		if err := h.ready(ctx); err != nil {
			return notReady(err)
		}
	}
	return c.JSON(http.StatusOK, map[string]string{"status": "ready"})
}

// notReady names what failed. Of the database it says no more than that: the error knows its address and user.
func notReady(err error) error {
	detail := err.Error()
	if isUnavailable(err) {
		detail = "database: it cannot be reached, or does not answer in time"
	}
	p := unavailable(detail)
	p.cause = err
	return p
}
