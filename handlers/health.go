package handlers

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const readyTimeout = 2 * time.Second

type health struct {
	ready    func(ctx context.Context) error
	warnings func(ctx context.Context) []string
	// admission makes it say degraded while new work is refused.
	admission *outbox.Admission
}

// alive answers as long as the process can answer at all: what is broken outside of it is no reason to restart it.
func (health) alive(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
}

// readiness is what load balancers go by: it is 200 also with warnings, which are for people, and while new work is refused: every other
// process would refuse it, too.
func (h health) readiness(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), readyTimeout)
	defer cancel()
	answer := struct {
		Status   string   `json:"status"`
		Warnings []string `json:"warnings,omitempty"`
	}{Status: "ready"}
	if h.ready != nil {
		if err := h.ready(ctx); err != nil {
			return notReady(err)
		}
	}
	if h.warnings != nil {
		answer.Warnings = h.warnings(ctx)
	}
	if h.admission != nil {
		if b := h.admission.Backlog(ctx); b.Refuses {
			answer.Status = "degraded"
			answer.Warnings = append(answer.Warnings, fmt.Sprintf("new work is refused: %s for %s", behind(b), b.Age.Round(time.Second)))
		}
	}
	return c.JSON(http.StatusOK, answer)
}

func behind(b outbox.Backlog) string {
	if b.Consumer == "" {
		return "an event has waited for the relay"
	}
	return "an event has waited for " + b.Consumer
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
