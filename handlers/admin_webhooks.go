package handlers

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

func (a *admin) webhookRoutes(g *echo.Group) {
	g.GET("/webhooks", a.listWebhooks)
	g.POST("/webhooks", a.addWebhook)
	g.GET("/webhooks/:name", a.webhook)
	g.PATCH("/webhooks/:name", a.changeWebhook)
	g.DELETE("/webhooks/:name", a.removeWebhook)
	g.POST("/webhooks/:name/enable", a.enableWebhook)
	g.POST("/webhooks/:name/disable", a.disableWebhook)
	g.POST("/webhooks/:name/rotate", a.rotateWebhook)
	g.POST("/webhooks/:name/test", a.testWebhook)
	g.POST("/webhooks/:name/replay", a.replayWebhook)
}

func (a *admin) listWebhooks(c echo.Context) error {
	all, err := a.webhooks.List(c.Request().Context())
	if err != nil {
		return err
	}
	if all == nil {
		all = []webhooks.Endpoint{}
	}
	return c.JSON(http.StatusOK, List[webhooks.Endpoint]{Items: all})
}

func (a *admin) addWebhook(c echo.Context) error {
	var body struct {
		Name   string   `json:"name"`
		URL    string   `json:"url"`
		Types  []string `json:"types"`
		Secret string   `json:"secret"`
		From   string   `json:"from"`
		Reason string   `json:"reason"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	from, ok := outbox.ParseStart(body.From)
	if !ok {
		return invalid("/from", "must be a time like 2026-01-31T12:00:00Z, beginning, or left out: from now on")
	}
	by, err := a.action(c, actionBody{Reason: body.Reason})
	if err != nil {
		return err
	}
	made, secret, err := a.webhooks.Create(c.Request().Context(), webhooks.NewEndpoint{
		Name: body.Name, URL: body.URL, Types: body.Types, Secret: body.Secret, From: from,
	}, by)
	if err != nil {
		return adminProblem(err)
	}
	c.Response().Header().Set(echo.HeaderLocation, "/admin/webhooks/"+url.PathEscape(made.Name))
	return c.JSON(http.StatusCreated, MadeWebhook{made, secret})
}

func (a *admin) webhook(c echo.Context) error {
	name, err := pathName(c, "webhook")
	if err != nil {
		return err
	}
	return a.answerWebhook(c, name)
}

func (a *admin) answerWebhook(c echo.Context, name string) error {
	found, err := a.webhooks.Get(c.Request().Context(), name)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, found)
}

func (a *admin) changeWebhook(c echo.Context) error {
	name, err := pathName(c, "webhook")
	if err != nil {
		return err
	}
	var body struct {
		URL    *string  `json:"url"`
		Types  []string `json:"types"`
		Reason string   `json:"reason"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if body.URL == nil && body.Types == nil {
		return invalid("", "url, types or both must be given: what is to be changed")
	}
	by, err := a.action(c, actionBody{Reason: body.Reason})
	if err != nil {
		return err
	}
	changed, err := a.webhooks.Update(c.Request().Context(), name, webhooks.Change{URL: body.URL, Types: body.Types}, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, changed)
}

func (a *admin) removeWebhook(c echo.Context) error {
	name, err := pathName(c, "webhook")
	if err != nil {
		return err
	}
	by, err := a.forced(c)
	if err != nil {
		return err
	}
	removal, err := a.webhooks.Remove(c.Request().Context(), name, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, removal)
}

// webhookAction reads what is done to the endpoint in the path by whom, and why, where that is all there is to say.
func (a *admin) webhookAction(c echo.Context) (name string, by outbox.Action, err error) {
	if name, err = pathName(c, "webhook"); err != nil {
		return "", by, err
	}
	by, err = a.reasoned(c)
	return name, by, err
}

func (a *admin) enableWebhook(c echo.Context) error  { return a.setWebhook(c, a.webhooks.Enable) }
func (a *admin) disableWebhook(c echo.Context) error { return a.setWebhook(c, a.webhooks.Disable) }

func (a *admin) setWebhook(c echo.Context, set func(context.Context, string, outbox.Action) error) error {
	name, by, err := a.webhookAction(c)
	if err != nil {
		return err
	}
	if err := set(c.Request().Context(), name, by); err != nil {
		return adminProblem(err)
	}
	return a.answerWebhook(c, name)
}

func (a *admin) rotateWebhook(c echo.Context) error {
	name, by, err := a.webhookAction(c)
	if err != nil {
		return err
	}
	secret, err := a.webhooks.Rotate(c.Request().Context(), name, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, NewRotated(name, secret))
}

// testWebhook answers what became of the test, also where the endpoint did not take it.
func (a *admin) testWebhook(c echo.Context) error {
	name, by, err := a.webhookAction(c)
	if err != nil {
		return err
	}
	result, err := a.webhooks.Test(c.Request().Context(), name, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, result)
}

func (a *admin) replayWebhook(c echo.Context) error {
	name, err := pathName(c, "webhook")
	if err != nil {
		return err
	}
	var body struct {
		Since  string `json:"since"`
		Reason string `json:"reason"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	since, err := time.Parse(time.RFC3339, body.Since)
	if err != nil || since.IsZero() {
		return invalid("/since", "must be a time like 2026-01-31T12:00:00Z")
	}
	by, err := a.action(c, actionBody{Reason: body.Reason})
	if err != nil {
		return err
	}
	status, err := a.webhooks.Replay(c.Request().Context(), name, since, by)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusAccepted, status)
}
