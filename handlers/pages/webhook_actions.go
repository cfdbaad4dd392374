package pages

import (
	"context"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// actOn reads a form of an endpoint's page, does what it asks for and leads back to the page. What is refused is said at the form, which
// pick chooses, with what was typed.
func (p *Pages) actOn(
	c echo.Context, what string, pick func(*webhookView) *formState, do func(ctx context.Context, v *webhookView, by outbox.Action) (problem string, err error),
) error {
	if err := c.Request().ParseForm(); err != nil {
		return formError{err}
	}
	v, err := p.webhookView(c, c.Param("name"))
	if err != nil {
		return err
	}
	by, problem := action(c)
	form := pick(v)
	form.Reason = by.Reason
	if problem == "" {
		problem, err = do(c.Request().Context(), v, by)
	}
	switch {
	case err != nil:
		status, why, _, ok := refusal(err)
		if !ok {
			return err
		}
		form.Error = why
		return p.showWebhook(c, status, v)
	case problem != "":
		form.Error = problem
		return p.showWebhook(c, http.StatusUnprocessableEntity, v)
	case what == "": // the answer is on the page itself
		return p.showWebhook(c, http.StatusOK, v)
	case what == "removed":
		return after(c, webhooksPath, what)
	}
	return after(c, v.Path, what)
}

func (p *Pages) changeWebhook(c echo.Context) error {
	return p.actOn(c, "changed", func(v *webhookView) *formState { return &v.Change.formState }, func(ctx context.Context, v *webhookView, by outbox.Action) (string, error) {
		v.Change.URL, v.Change.Types = strings.TrimSpace(c.FormValue("url")), c.FormValue("types")
		change := webhooks.Change{Types: types(v.Change.Types)}
		if change.Types == nil {
			change.Types = []string{}
		}
		if v.Change.URL != "" { // which is not shown as a whole: what is not typed stays
			change.URL = &v.Change.URL
		}
		_, err := p.webhooks.Update(ctx, v.Name, change, by)
		return "", err
	})
}

func ofSwitch(v *webhookView) *formState { return &v.Switch }

func (p *Pages) enableWebhook(c echo.Context) error {
	return p.actOn(c, "enabled", ofSwitch, func(ctx context.Context, v *webhookView, by outbox.Action) (string, error) {
		return "", p.webhooks.Enable(ctx, v.Name, by)
	})
}

func (p *Pages) disableWebhook(c echo.Context) error {
	return p.actOn(c, "disabled", ofSwitch, func(ctx context.Context, v *webhookView, by outbox.Action) (string, error) {
		return "", p.webhooks.Disable(ctx, v.Name, by)
	})
}

func (p *Pages) rotateWebhook(c echo.Context) error {
	return p.actOn(c, "", func(v *webhookView) *formState { return &v.Rotate }, func(ctx context.Context, v *webhookView, by outbox.Action) (_ string, err error) {
		v.Secret, err = p.webhooks.Rotate(ctx, v.Name, by)
		return "", err
	})
}

func (p *Pages) testWebhook(c echo.Context) error {
	return p.actOn(c, "", func(v *webhookView) *formState { return &v.Test }, func(ctx context.Context, v *webhookView, by outbox.Action) (string, error) {
		result, err := p.webhooks.Test(ctx, v.Name, by)
		if err == nil {
			v.Tested = &result
		}
		return "", err
	})
}

func (p *Pages) replayWebhook(c echo.Context) error {
	return p.actOn(c, "resent", func(v *webhookView) *formState { return &v.Replay.formState }, func(ctx context.Context, v *webhookView, by outbox.Action) (string, error) {
		v.Replay.Since = c.FormValue("since")
		since, err := parseTime(strings.TrimSpace(v.Replay.Since))
		if err != nil {
			return "Since when " + timeForm + ".", nil
		}
		_, err = p.webhooks.Replay(ctx, v.Name, since, by)
		return "", err
	})
}

func (p *Pages) removeWebhook(c echo.Context) error {
	return p.actOn(c, "removed", func(v *webhookView) *formState { return &v.Remove }, func(ctx context.Context, v *webhookView, by outbox.Action) (string, error) {
		_, err := p.webhooks.Remove(ctx, v.Name, by)
		return "", err
	})
}
