package handlers

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type bulkReplayBody struct {
	Filter json.RawMessage `json:"filter"`
	Rate   *int            `json:"rate"`
	Canary *bool           `json:"canary"`
	Reason string          `json:"reason"`
	Force  bool            `json:"force"`
}

// bulkFilter is what a filter in a body may have, as a list's parameters do.
type bulkFilter struct {
	Consumer      string `json:"consumer"`
	Type          string `json:"type"`
	Key           string `json:"key"`
	CorrelationID string `json:"correlation_id"`
	Since         string `json:"since"`
	Until         string `json:"until"`
	Error         string `json:"error"`
	Fingerprint   string `json:"fingerprint"`
}

// replayAll begins the replay of all dead letters that a filter chooses; {} chooses all there are.
func (a *admin) replayAll(c echo.Context) error {
	var body bulkReplayBody
	if err := decode(c, &body); err != nil {
		return err
	}
	b := outbox.BulkReplay{NoCanary: body.Canary != nil && !*body.Canary}
	var err error
	if b.Filter, err = bulkLetters(body.Filter); err != nil {
		return err
	}
	if body.Rate != nil {
		if b.Rate = *body.Rate; b.Rate < 1 || b.Rate > outbox.MaxReplayRate {
			return invalid("/rate", "must be a whole number from 1 to "+strconv.Itoa(outbox.MaxReplayRate))
		}
	}
	by, err := a.action(c, actionBody{body.Reason, body.Force})
	if err != nil {
		return err
	}
	operation, err := a.operator.ReplayAll(c.Request().Context(), b, by)
	if err != nil {
		return adminProblem(err)
	}
	c.Response().Header().Set(echo.HeaderLocation, "/admin/operations/"+strconv.FormatInt(operation.ID, 10))
	return c.JSON(http.StatusAccepted, operation)
}

// bulkLetters reads the filter. It must be there: nobody replays everything by an empty body.
func bulkLetters(raw json.RawMessage) (f outbox.LetterFilter, err error) {
	if raw == nil {
		return f, invalid("/filter", "is required: an object like {\"consumer\":\"billing\"}, or {} for all dead letters")
	}
	var b bulkFilter
	if err := bindAt("/filter", raw, &b); err != nil {
		return f, err
	}
	var v collector
	moment := func(pointer, value string) (t time.Time) {
		if value == "" {
			return t
		}
		t, err := time.Parse(time.RFC3339, value)
		if err != nil {
			v.refuse(pointer, "must be a time like 2026-01-31T12:00:00Z")
		}
		return t
	}
	f = outbox.LetterFilter{
		Consumer: b.Consumer, Type: b.Type, Key: b.Key, CorrelationID: b.CorrelationID, Error: b.Error, Fingerprint: b.Fingerprint,
		Since: moment("/filter/since", b.Since), Until: moment("/filter/until", b.Until),
	}
	return f, v.problem()
}

func (a *admin) operations(c echo.Context) error {
	q := newQuery(c, "limit", "cursor")
	limit, before := q.number("limit", 50, 1, 100), q.number("cursor", 0, 1, 1<<62)
	if err := q.problem(); err != nil {
		return err
	}
	items, err := a.operator.Operations(c.Request().Context(), before, int(limit)+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, OperationPage(items, int(limit)))
}

func (a *admin) operation(c echo.Context) error {
	id, err := pathNumber(c, "operation")
	if err != nil {
		return err
	}
	operation, err := a.operator.Operation(c.Request().Context(), id)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, operation)
}

func (a *admin) stopOperation(c echo.Context) error {
	id, err := pathNumber(c, "operation")
	if err != nil {
		return err
	}
	var body struct {
		Reason string `json:"reason"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	by, err := a.action(c, actionBody{Reason: body.Reason})
	if err != nil {
		return err
	}
	operation, err := a.operator.StopOperation(c.Request().Context(), id, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, operation)
}
