package pages

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

const webhooksPath = Root + "/webhooks"

func (p *Pages) webhookRoutes(e *echo.Echo) {
	e.GET(webhooksPath, p.listWebhooks)
	e.POST(webhooksPath, p.addWebhook)
	e.GET(webhooksPath+"/:name", p.webhook)
	e.POST(webhooksPath+"/:name/change", p.changeWebhook)
	e.POST(webhooksPath+"/:name/enable", p.enableWebhook)
	e.POST(webhooksPath+"/:name/disable", p.disableWebhook)
	e.POST(webhooksPath+"/:name/rotate", p.rotateWebhook)
	e.POST(webhooksPath+"/:name/test", p.testWebhook)
	e.POST(webhooksPath+"/:name/replay", p.replayWebhook)
	e.POST(webhooksPath+"/:name/remove", p.removeWebhook)
}

// endpoint is an endpoint with how far its consumer is, as it is kept.
type endpoint struct {
	webhooks.Endpoint
	Path  string
	Stats *outbox.ConsumerStats // nil: nobody has counted yet
}

type webhooksView struct {
	Endpoints []endpoint
	Add       addForm
}

// addForm is what was typed into the form of a new endpoint.
type addForm struct {
	formState
	Name, URL, Types, From string
}

func (p *Pages) endpoints(ctx context.Context) ([]endpoint, error) {
	all, err := p.webhooks.List(ctx)
	if err != nil {
		return nil, err
	}
	stats, err := p.operator.Stats(ctx)
	if err != nil {
		return nil, err
	}
	views := make([]endpoint, len(all))
	for i, e := range all {
		views[i] = endpoint{Endpoint: e, Path: webhooksPath + "/" + url.PathEscape(e.Name)}
		at := slices.IndexFunc(stats.Consumers, func(c outbox.ConsumerStats) bool { return c.Name == e.Consumer && c.Counted })
		if at >= 0 {
			views[i].Stats = &stats.Consumers[at]
		}
	}
	return views, nil
}

func (p *Pages) listWebhooks(c echo.Context) error {
	return p.showWebhooks(c, http.StatusOK, webhooksView{})
}

func (p *Pages) showWebhooks(c echo.Context, status int, v webhooksView) (err error) {
	if v.Endpoints, err = p.endpoints(c.Request().Context()); err != nil {
		return err
	}
	return p.render(c, status, "webhooks", "Webhooks", v)
}

// addWebhook makes an endpoint. Its secret is on the page that answers, and nowhere else: there is no way back to that page.
func (p *Pages) addWebhook(c echo.Context) error {
	if err := c.Request().ParseForm(); err != nil {
		return formError{err}
	}
	by, problem := action(c)
	form := addForm{Name: strings.TrimSpace(c.FormValue("name")), URL: strings.TrimSpace(c.FormValue("url")), Types: c.FormValue("types"), From: c.FormValue("from")}
	form.Reason, form.Error = by.Reason, problem
	from, ok := start(form.From)
	if !ok && problem == "" {
		form.Error = "Where it begins " + timeForm + ", the word beginning, or be left out."
	}
	if form.Error != "" {
		return p.showWebhooks(c, http.StatusUnprocessableEntity, webhooksView{Add: form})
	}
	made, secret, err := p.webhooks.Create(c.Request().Context(), webhooks.NewEndpoint{
		Name: form.Name, URL: form.URL, Types: types(form.Types), Secret: strings.TrimSpace(c.FormValue("secret")), From: from,
	}, by)
	if err != nil {
		status, why, _, ok := refusal(err)
		if !ok {
			return err
		}
		form.Error = why
		return p.showWebhooks(c, status, webhooksView{Add: form})
	}
	v, err := p.webhookView(c, made.Name)
	if err != nil {
		return err
	}
	v.Secret = secret
	return p.showWebhook(c, http.StatusCreated, v)
}

// types are event types as people list them.
func types(typed string) []string {
	return strings.FieldsFunc(typed, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

type webhookView struct {
	endpoint
	Secret string // of an endpoint that was just made or given a new one
	Tested *webhooks.Result
	Change changeForm
	Switch formState
	Rotate formState
	Test   formState
	Replay replayForm
	Remove formState
}

type changeForm struct {
	formState
	URL, Types string
}

type replayForm struct {
	formState
	Since string
}

func (p *Pages) webhookView(c echo.Context, name string) (*webhookView, error) {
	all, err := p.endpoints(c.Request().Context())
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(all, func(e endpoint) bool { return e.Name == name })
	if at < 0 {
		return nil, outbox.ErrNotFound
	}
	return &webhookView{endpoint: all[at], Change: changeForm{Types: strings.Join(all[at].Types, ", ")}}, nil
}

func (p *Pages) webhook(c echo.Context) error {
	v, err := p.webhookView(c, c.Param("name"))
	if err != nil {
		return err
	}
	return p.showWebhook(c, http.StatusOK, v)
}

func (p *Pages) showWebhook(c echo.Context, status int, v *webhookView) error {
	return p.render(c, status, "webhook", "Webhook "+v.Name, v)
}
