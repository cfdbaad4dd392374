package handlers

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

func (a *admin) consumers(c echo.Context) error {
	all, err := a.operator.Consumers(c.Request().Context())
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, List[outbox.ConsumerStatus]{Items: all})
}

// pathName is the name in the path; what can be nobody's name, the database is not asked for.
func pathName(c echo.Context, what string) (string, error) {
	name := c.Param("name")
	if !readable(name) {
		return "", notFound(what)
	}
	return name, nil
}

type actionBody struct {
	Reason string `json:"reason"`
	Force  bool   `json:"force"`
}

// action is who does what is asked for, and why.
func (a *admin) action(c echo.Context, body actionBody) (outbox.Action, error) {
	if reasonTooLong(body.Reason) {
		return outbox.Action{}, invalid("/reason", "must be at most 1000 characters without NUL")
	}
	return outbox.Action{Actor: a.actor(c), Reason: body.Reason, Force: body.Force}, nil
}

// reasoned is action where the body has a reason, or is left out.
func (a *admin) reasoned(c echo.Context) (by outbox.Action, err error) {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := decodeOptional(c, &body); err != nil {
		return by, err
	}
	return a.action(c, actionBody{Reason: body.Reason})
}

// forced is reasoned where it can be forced, too.
func (a *admin) forced(c echo.Context) (by outbox.Action, err error) {
	var body actionBody
	if err := decodeOptional(c, &body); err != nil {
		return by, err
	}
	return a.action(c, body)
}

func (a *admin) pause(c echo.Context) error  { return a.setPaused(c, a.operator.Pause, true) }
func (a *admin) resume(c echo.Context) error { return a.setPaused(c, a.operator.Resume, false) }

func (a *admin) setPaused(c echo.Context, set func(context.Context, string, outbox.Action, ...outbox.Also) error, paused bool) error {
	name, err := pathName(c, "consumer")
	if err != nil {
		return err
	}
	by, err := a.reasoned(c)
	if err != nil {
		return err
	}
	if err := set(c.Request().Context(), name, by); err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, Paused{name, paused})
}

func (a *admin) remove(c echo.Context) error {
	name, err := pathName(c, "consumer")
	if err != nil {
		return err
	}
	by, err := a.forced(c)
	if err != nil {
		return err
	}
	removal, err := a.operator.Remove(c.Request().Context(), name, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, removal)
}

func (a *admin) unsubscribe(c echo.Context) error {
	name, err := pathName(c, "consumer")
	if err != nil {
		return err
	}
	var body struct {
		Pattern string `json:"pattern"`
		Reason  string `json:"reason"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if body.Pattern == "" {
		return invalid("/pattern", "is required: a subscription of the consumer, like cart.*")
	}
	by, err := a.action(c, actionBody{Reason: body.Reason})
	if err != nil {
		return err
	}
	if err := a.operator.Unsubscribe(c.Request().Context(), name, body.Pattern, by); err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, Unsubscribed{name, body.Pattern})
}

type backfillBody struct {
	// From is a time (RFC 3339), or beginning; Until a time, or nothing: where the consumer is now.
	From    string `json:"from"`
	Until   string `json:"until"`
	Appends bool   `json:"appends"`
	Reason  string `json:"reason"`
	Force   bool   `json:"force"`
}

func (a *admin) backfill(c echo.Context) error {
	name, err := pathName(c, "consumer")
	if err != nil {
		return err
	}
	var body backfillBody
	if err := decode(c, &body); err != nil {
		return err
	}
	from, ok := outbox.ParseStart(body.From)
	if !ok || body.From == "" {
		return invalid("/from", "must be a time like 2026-01-31T12:00:00Z, or beginning")
	}
	b := outbox.Backfill{From: from, Appends: body.Appends}
	if body.Until != "" {
		until, err := time.Parse(time.RFC3339, body.Until)
		if err != nil {
			return invalid("/until", "must be a time like 2026-01-31T12:00:00Z, or left out")
		}
		b.Until = until
	}
	by, err := a.action(c, actionBody{body.Reason, body.Force})
	if err != nil {
		return err
	}
	status, err := a.operator.Backfill(c.Request().Context(), name, b, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusAccepted, status)
}

func (a *admin) backfills(c echo.Context) error {
	name, err := pathName(c, "consumer")
	if err != nil {
		return err
	}
	all, err := a.operator.Backfills(c.Request().Context(), name)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, List[outbox.BackfillStatus]{Items: all})
}

func (a *admin) backfillStatus(c echo.Context) error {
	id, err := pathNumber(c, "backfill")
	if err != nil {
		return err
	}
	status, err := a.operator.BackfillStatus(c.Request().Context(), id)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, status)
}

func (a *admin) stopBackfill(c echo.Context) error {
	id, err := pathNumber(c, "backfill")
	if err != nil {
		return err
	}
	by, err := a.reasoned(c)
	if err != nil {
		return err
	}
	status, err := a.operator.StopBackfill(c.Request().Context(), id, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, status)
}
