package handlers

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// AdminConfig is what the operators' listener needs.
type AdminConfig struct {
	Config
	Operator *outbox.Operator
	// Tokens are the operators' bearer tokens; the value is the actor's name. None: there are no admin routes.
	Tokens map[string]string
}

// NewAdmin returns the operators' listener: probes and, where there are tokens, /admin.
func NewAdmin(cfg AdminConfig) *echo.Echo {
	e := newEcho(cfg.Config)
	a := &admin{operator: cfg.Operator}
	for token, name := range cfg.Tokens {
		a.tokens = append(a.tokens, hashedToken{sha256.Sum256([]byte(token)), name})
	}
	if len(a.tokens) == 0 {
		return e
	}
	// Not the group's own middleware: with that, echo answers 404 to a wrong method.
	e.Use(a.authenticate)
	g := e.Group("/admin")
	g.GET("/dlq", a.letters)
	g.GET("/dlq/:id", a.letter)
	g.POST("/dlq/:id/replay", a.replay)
	g.POST("/dlq/:id/dismiss", a.dismiss)
	g.GET("/events/:id", a.event)
	g.GET("/trace/:correlation_id", a.trace)
	g.GET("/consumers", a.consumers)
	g.POST("/consumers/:name/pause", a.pause)
	g.POST("/consumers/:name/resume", a.resume)
	g.POST("/consumers/:name/remove", a.remove)
	g.POST("/consumers/:name/unsubscribe", a.unsubscribe)
	g.POST("/consumers/:name/backfill", a.backfill)
	g.GET("/consumers/:name/backfills", a.backfills)
	g.GET("/backfills/:id", a.backfillStatus)
	g.POST("/backfills/:id/stop", a.stopBackfill)
	return e
}

type admin struct {
	operator *outbox.Operator
	tokens   []hashedToken
}

type hashedToken struct {
	hash [sha256.Size]byte
	name string
}

const actorKey = "actor"

// authenticate wants one of the operators' tokens for all below /admin, and so tells nobody else what is there. All of
// them are compared, in constant time: the answer's time says nothing of how much of a guess was right.
func (a *admin) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		// By the route as well as by the path: whatever the router makes of a path, no route below /admin is open.
		if !strings.HasPrefix(c.Request().URL.Path, "/admin") && !strings.HasPrefix(c.Path(), "/admin") {
			return next(c)
		}
		scheme, token, _ := strings.Cut(c.Request().Header.Get(echo.HeaderAuthorization), " ")
		given, actor := sha256.Sum256([]byte(strings.TrimSpace(token))), ""
		for _, t := range a.tokens {
			if subtle.ConstantTimeCompare(given[:], t.hash[:]) == 1 {
				actor = t.name
			}
		}
		if actor == "" || !strings.EqualFold(scheme, "Bearer") {
			return unauthenticated("an operator's token is required")
		}
		c.Set(actorKey, actor)
		return next(c)
	}
}

func (a *admin) actor(c echo.Context) string {
	name, _ := c.Get(actorKey).(string)
	return name
}

func (a *admin) letters(c echo.Context) error {
	q := newQuery(c, "consumer", "type", "key", "correlation_id", "state", "since", "until", "error", "limit", "cursor")
	f := outbox.LetterFilter{
		Consumer: q.text("consumer"), Type: q.text("type"), Key: q.text("key"), CorrelationID: q.text("correlation_id"),
		State: q.oneOf("state", "dead", "replaying", "replayed", "dismissed"), Error: q.text("error"),
		Since: q.time("since"), Until: q.time("until"),
	}
	limit, before := q.number("limit", 50, 1, 100), q.number("cursor", 0, 1, 1<<62)
	if err := q.problem(); err != nil {
		return err
	}
	items, err := a.operator.Letters(c.Request().Context(), f, before, int(limit)+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, page(items, int(limit),
		func(l outbox.LetterSummary) outbox.LetterSummary { return l },
		func(l outbox.LetterSummary) string { return strconv.FormatInt(l.ID, 10) }))
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
	if reasonTooLong(body.Reason) {
		return invalid("/reason", "must be at most 1000 characters without NUL")
	}
	by := outbox.Action{Actor: a.actor(c), Reason: body.Reason, Force: body.Force}
	job, err := a.operator.Replay(c.Request().Context(), id, body.Data, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusAccepted, map[string]any{"id": id, "state": "replaying", "job_id": job})
}

func (a *admin) dismiss(c echo.Context) error {
	id, err := letterID(c)
	if err != nil {
		return err
	}
	var body struct {
		Reason string `json:"reason"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if reasonTooLong(body.Reason) {
		return invalid("/reason", "must be at most 1000 characters without NUL")
	}
	dismissed, err := a.operator.Dismiss(c.Request().Context(), id, outbox.Action{Actor: a.actor(c), Reason: body.Reason})
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, dismissed)
}

func (a *admin) event(c echo.Context) error {
	id, err := pathID(c.Param("id"), "event")
	if err != nil {
		return err
	}
	e, err := a.operator.Event(c.Request().Context(), id)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, e)
}

func (a *admin) trace(c echo.Context) error {
	id := c.Param("correlation_id")
	if !outbox.ValidCorrelationID(id) {
		return notFound("correlation id")
	}
	events, err := a.operator.Trace(c.Request().Context(), id)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return notFound("correlation id")
	}
	return c.JSON(http.StatusOK, map[string]any{"correlation_id": id, "events": events})
}

func reasonTooLong(reason string) bool {
	return len([]rune(reason)) > 1000 || strings.ContainsRune(reason, 0)
}

// letterID is the id in the path; what cannot be one is not found.
func letterID(c echo.Context) (int64, error) { return pathNumber(c, "dead letter") }

func pathNumber(c echo.Context, what string) (int64, error) {
	id, err := strconv.ParseInt(c.Param("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, notFound(what)
	}
	return id, nil
}

// adminProblem gives the library's errors their HTTP form.
func adminProblem(err error) error {
	var conflict *outbox.ConflictError
	var refused *outbox.InvalidEventError
	switch {
	case errors.Is(err, outbox.ErrNotFound):
		return notFound("object")
	case errors.Is(err, outbox.ErrReasonRequired):
		return invalid("/reason", "is required: 1 to 1000 characters without NUL")
	case errors.As(err, &conflict):
		p := conflictProblem("conflict", conflict.Reason)
		if len(conflict.Newer) > 0 {
			p.more = map[string]any{"newer": conflict.Newer}
		}
		return p
	case errors.As(err, &refused):
		return invalid("/"+refused.Field, refused.Reason)
	}
	return err
}
