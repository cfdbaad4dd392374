package handlers

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/handlers/pages"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// AdminConfig is what the operators' listener needs.
type AdminConfig struct {
	Config
	// Operator has the consumers' code, also in a process that does not run them: see Operator.WithConsumers.
	Operator *outbox.Operator
	// Tokens are the operators' tokens, bearers of the routes and keys to the pages; the value is the actor's name. None: there are neither.
	Tokens map[string]string
	// Metrics answers GET /metrics, without a token, as the probes do. Nil: there is no such route.
	Metrics http.Handler
	// Webhooks keeps the endpoints that events are sent to. Nil: there are no routes and no pages for them.
	Webhooks *webhooks.Store
	// River is River's UI, which expects to be below /admin/river. Nil: it is not there, nor without tokens.
	River http.Handler
}

// NewAdmin returns the operators' listener: probes, /openapi.yaml and /docs, metrics and, where there are tokens, /admin with its pages, to which / leads.
func NewAdmin(cfg AdminConfig) *echo.Echo {
	e := newEcho(cfg.Config)
	if cfg.Metrics != nil {
		e.GET("/metrics", echo.WrapHandler(cfg.Metrics))
	}
	a := &admin{operator: cfg.Operator, pool: cfg.Pool, river: cfg.River, webhooks: cfg.Webhooks}
	if len(cfg.Tokens) == 0 {
		return e
	}
	a.pages = pages.New(pages.Config{
		Operator: cfg.Operator, Tokens: cfg.Tokens, Explain: explainToPage, Admission: cfg.Admission, Webhooks: cfg.Webhooks,
		Find:  func(ctx context.Context, query string) (outbox.Search, error) { return Lookup(ctx, cfg.Pool, query) },
		River: a.river != nil,
	})
	a.pages.Routes(e)
	if a.river != nil {
		a.riverRoutes(e)
	}
	e.GET("/", func(c echo.Context) error { return c.Redirect(http.StatusSeeOther, pages.Root) })
	// Not the group's own middleware: with that, echo answers 404 to a wrong method.
	e.Use(a.authenticate)
	g := e.Group("/admin")
	g.GET("/dlq", a.letters)
	g.GET("/dlq/groups", a.letterGroups)
	g.POST("/dlq/replay", a.replayAll)
	g.GET("/dlq/:id", a.letter)
	g.POST("/dlq/:id/rehearse", a.rehearse)
	g.POST("/dlq/:id/replay", a.replay)
	g.POST("/dlq/:id/dismiss", a.dismiss)
	g.POST("/dlq/:id/redact", a.redact)
	g.GET("/events/:id", a.event)
	g.GET("/trace/:correlation_id", a.trace)
	g.POST("/search", a.search)
	g.GET("/operations", a.operations)
	g.GET("/operations/:id", a.operation)
	g.POST("/operations/:id/stop", a.stopOperation)
	g.GET("/audit", a.audit)
	g.GET("/stats", a.stats)
	g.GET("/consumers", a.consumers)
	g.POST("/consumers/:name/pause", a.pause)
	g.POST("/consumers/:name/resume", a.resume)
	g.POST("/consumers/:name/remove", a.remove)
	g.POST("/consumers/:name/unsubscribe", a.unsubscribe)
	g.POST("/consumers/:name/backfill", a.backfill)
	g.GET("/consumers/:name/backfills", a.backfills)
	g.GET("/backfills/:id", a.backfillStatus)
	g.POST("/backfills/:id/stop", a.stopBackfill)
	if a.webhooks != nil {
		a.webhookRoutes(g)
	}
	return e
}

type admin struct {
	operator *outbox.Operator
	pool     *pgxpool.Pool
	pages    *pages.Pages
	webhooks *webhooks.Store
	river    http.Handler
}

const actorKey = "actor"

// authenticate decides for all below /admin who may come in: the pages and River's UI take the cookie of the login, and everything else one of the
// operators' tokens as a bearer, never the cookie, which a browser sends by itself. So nobody else is told what is there.
func (a *admin) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	page, river := a.pages.Guard(next), a.pages.GuardRiver(next)
	return func(c echo.Context) error {
		if pages.Serves(c) {
			return page(c)
		}
		if a.river != nil && pages.ServesRiver(c) {
			return riverProblem(river(c))
		}
		// By the route as well as by the path: whatever the router makes of a path, no route below /admin is open.
		if !strings.HasPrefix(c.Request().URL.Path, "/admin") && !strings.HasPrefix(c.Path(), "/admin") {
			return next(c)
		}
		scheme, token, _ := strings.Cut(c.Request().Header.Get(echo.HeaderAuthorization), " ")
		actor, known := a.pages.OperatorOf(token)
		if !known || !strings.EqualFold(scheme, "Bearer") {
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

func reasonTooLong(reason string) bool {
	return len([]rune(reason)) > 1000 || strings.ContainsRune(reason, 0)
}

func pathNumber(c echo.Context, what string) (int64, error) {
	id, err := strconv.ParseInt(c.Param("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, notFound(what)
	}
	return id, nil
}

// explainToPage gives an error the form that a page shows, and leaves it for the request's log line.
func explainToPage(c echo.Context, err error) pages.Failure {
	p := problemOf(adminProblem(err))
	c.Set(failureKey, p)
	for name, value := range p.header {
		c.Response().Header().Set(name, value)
	}
	return pages.Failure{Status: p.status, Title: p.title, Detail: p.detail}
}

// adminProblem gives the library's errors their HTTP form.
func adminProblem(err error) error {
	var conflict *outbox.ConflictError
	var refused *outbox.InvalidEventError
	var data *outbox.InvalidDataError
	var redaction *outbox.InvalidRedactionError
	var webhook *webhooks.InvalidError
	switch {
	case errors.As(err, &data):
		errs := make([]fieldError, len(data.Fields))
		for i, f := range data.Fields {
			errs[i] = fieldError{"/data" + f.Pointer, f.Detail}
		}
		return validation(errs)
	case errors.As(err, &redaction):
		errs := make([]fieldError, len(redaction.Fields))
		for i, f := range redaction.Fields {
			errs[i] = fieldError(f)
		}
		return validation(errs)
	case errors.As(err, &webhook):
		return invalid("/"+webhook.Field, webhook.Reason)
	case errors.Is(err, outbox.ErrNotFound):
		return notFound("object")
	case errors.Is(err, outbox.ErrReasonRequired):
		return invalid("/reason", "is required: 1 to 1000 characters without NUL")
	case errors.As(err, &conflict):
		p := conflictProblem("conflict", conflict.Reason)
		if len(conflict.Newer) > 0 {
			p.more = map[string]any{"newer": conflict.Newer}
		}
		if conflict.OutcomeUnknown {
			p.slug, p.title = "outcome-unknown", "It is not known what was done outside"
		}
		return p
	case errors.As(err, &refused):
		return invalid("/"+refused.Field, refused.Reason)
	}
	return err
}
