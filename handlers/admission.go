package handlers

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// retryRefused is what Retry-After says to those who are refused: what an admission goes by is kept about so often.
const retryRefused = "5"

const webhookPath = "/v1/webhooks/stripe"

// admit refuses what writes under /v1 while the service is too far behind. The provider's webhooks are let in: they are the outcome of what
// was taken, and bring no new work.
func admit(admission *outbox.Admission) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		if admission == nil {
			return next
		}
		return func(c echo.Context) error {
			switch c.Request().Method {
			case http.MethodGet, http.MethodHead, http.MethodOptions:
				return next(c)
			}
			if !strings.HasPrefix(c.Path(), "/v1/") || c.Path() == webhookPath {
				return next(c)
			}
			if admission.Backlog(c.Request().Context()).Refuses {
				return overloaded()
			}
			return next(c)
		}
	}
}

// overloaded is for work that is not taken in, on purpose.
func overloaded() *problem {
	return &problem{
		status: http.StatusServiceUnavailable, slug: slugOverloaded, title: "The service is catching up",
		detail: "what was asked for before is still being worked off; nothing was changed",
		header: map[string]string{"Retry-After": retryRefused},
	}
}

const slugOverloaded = "overloaded"
