package handlers

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

func (a *admin) letters(c echo.Context) error {
	q, f := letterQuery(c)
	limit, before := q.number("limit", 50, 1, 100), q.number("cursor", 0, 1, 1<<62)
	if err := q.problem(); err != nil {
		return err
	}
	items, err := a.operator.Letters(c.Request().Context(), f, before, int(limit)+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, LetterPage(items, int(limit)))
}

// letterGroups are the dead letters of one cause each; where no state is asked for, of those that are dead.
func (a *admin) letterGroups(c echo.Context) error {
	q, f := letterQuery(c)
	limit, cursor := q.number("limit", 50, 1, 100), q.text("cursor")
	var after *outbox.LetterGroup
	if cursor != "" {
		var ok bool
		if after, ok = ParseGroupCursor(cursor); !ok {
			q.refuse("cursor", "must be a next_cursor that a page of this list gave")
		}
	}
	if err := q.problem(); err != nil {
		return err
	}
	if f.State == "" {
		f.State = "dead"
	}
	items, err := a.operator.LetterGroups(c.Request().Context(), f, after, int(limit)+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, LetterGroupPage(items, int(limit)))
}

// letterQuery reads the filter that the lists of letters have in common.
func letterQuery(c echo.Context) (*query, outbox.LetterFilter) {
	q := newQuery(c, "consumer", "type", "key", "correlation_id", "state", "since", "until", "error", "fingerprint", "limit", "cursor")
	return q, outbox.LetterFilter{
		Consumer: q.text("consumer"), Type: q.text("type"), Key: q.text("key"), CorrelationID: q.text("correlation_id"),
		State: q.oneOf("state", "dead", "replaying", "replayed", "dismissed"), Error: q.text("error"), Fingerprint: q.text("fingerprint"),
		Since: q.time("since"), Until: q.time("until"),
	}
}

func (a *admin) letter(c echo.Context) error {
	id, err := letterID(c)
	if err != nil {
		return err
	}
	l, err := a.operator.Letter(c.Request().Context(), id)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, l)
}

type replayBody struct {
	Data   json.RawMessage `json:"data"`
	Reason string          `json:"reason"`
	Force  bool            `json:"force"`
}

// replay takes no body, or data to send in place of the event's own, and a reason, which data and force require.
func (a *admin) replay(c echo.Context) error {
	id, err := letterID(c)
	if err != nil {
		return err
	}
	var body replayBody
	if err := decodeOptional(c, &body); err != nil {
		return err
	}
	if string(body.Data) == "null" {
		body.Data = nil
	}
	by, err := a.action(c, actionBody{body.Reason, body.Force})
	if err != nil {
		return err
	}
	r, err := a.operator.ReplayEdited(c.Request().Context(), id, body.Data, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusAccepted, NewReplaying(id, r, body.Data != nil))
}

// rehearse takes no body, or data to try in place of the event's own.
func (a *admin) rehearse(c echo.Context) error {
	id, err := letterID(c)
	if err != nil {
		return err
	}
	var body struct {
		Data   json.RawMessage `json:"data"`
		Reason string          `json:"reason"`
	}
	if err := decodeOptional(c, &body); err != nil {
		return err
	}
	if string(body.Data) == "null" {
		body.Data = nil
	}
	by, err := a.action(c, actionBody{Reason: body.Reason})
	if err != nil {
		return err
	}
	rehearsal, err := a.operator.Rehearse(c.Request().Context(), id, body.Data, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, rehearsal)
}

func (a *admin) dismiss(c echo.Context) error {
	id, err := letterID(c)
	if err != nil {
		return err
	}
	var body struct {
		Reason string `json:"reason"`
		Force  bool   `json:"force"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if reasonTooLong(body.Reason) {
		return invalid("/reason", "must be at most 1000 characters without NUL")
	}
	dismissed, err := a.operator.Dismiss(c.Request().Context(), id, outbox.Action{Actor: a.actor(c), Reason: body.Reason, Force: body.Force})
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, dismissed)
}

// redact takes what is to be redacted, and a reason. The pointers are pointers: a null among them is not the whole document.
func (a *admin) redact(c echo.Context) error {
	id, err := letterID(c)
	if err != nil {
		return err
	}
	var body struct {
		Pointers []*string `json:"pointers"`
		Errors   bool      `json:"errors"`
		Reasons  bool      `json:"reasons"`
		Reason   string    `json:"reason"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	by, err := a.action(c, actionBody{Reason: body.Reason})
	if err != nil {
		return err
	}
	r := outbox.Redaction{Errors: body.Errors, Reasons: body.Reasons}
	for i, p := range body.Pointers {
		if p == nil {
			return invalid(fmt.Sprintf("/pointers/%d", i), "must be a string")
		}
		r.Pointers = append(r.Pointers, *p)
	}
	redacted, err := a.operator.Redact(c.Request().Context(), id, r, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, redacted)
}

// letterID is the id in the path; what cannot be one is not found.
func letterID(c echo.Context) (int64, error) { return pathNumber(c, "dead letter") }
