package pages

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

func (p *Pages) consumers(c echo.Context) error {
	all, err := p.operator.Consumers(c.Request().Context())
	if err != nil {
		return err
	}
	return p.render(c, http.StatusOK, "consumers", "Consumers", all)
}

type consumerView struct {
	outbox.ConsumerStatus
	Path      string
	Backfills []outbox.BackfillStatus
	Running   bool // a backfill is under way
	Pause     formState
	Stop      formState
	Backfill  backfillForm
}

// backfillForm is what was typed into the form of a backfill.
type backfillForm struct {
	formState
	From, Until    string
	Appends, Force bool
}

func (p *Pages) consumerView(c echo.Context) (*consumerView, error) {
	name := c.Param("name")
	if !plain(name, 255) {
		return nil, outbox.ErrNotFound
	}
	ctx := c.Request().Context()
	all, err := p.operator.Consumers(ctx)
	if err != nil {
		return nil, err
	}
	for _, status := range all {
		if status.Name != name {
			continue
		}
		v := &consumerView{ConsumerStatus: status, Path: Root + "/consumers/" + url.PathEscape(name), Backfill: backfillForm{From: "beginning"}}
		if v.Backfills, err = p.operator.Backfills(ctx, name); err != nil {
			return nil, err
		}
		for _, b := range v.Backfills {
			v.Running = v.Running || b.State == "running"
		}
		return v, nil
	}
	return nil, outbox.ErrNotFound
}

func (p *Pages) consumer(c echo.Context) error {
	v, err := p.consumerView(c)
	if err != nil {
		return err
	}
	return p.showConsumer(c, http.StatusOK, v)
}

func (p *Pages) showConsumer(c echo.Context, status int, v *consumerView) error {
	return p.render(c, status, "consumer", "Consumer "+v.Name, v)
}

func (p *Pages) pause(c echo.Context) error { return p.setPaused(c, p.operator.Pause, "paused") }

func (p *Pages) resume(c echo.Context) error { return p.setPaused(c, p.operator.Resume, "resumed") }

func (p *Pages) setPaused(c echo.Context, set func(context.Context, string, outbox.Action, ...outbox.Also) error, what string) error {
	v, err := p.consumerForm(c)
	if err != nil {
		return err
	}
	by, problem := action(c)
	v.Pause.Reason = by.Reason
	if problem == "" {
		if err := set(c.Request().Context(), v.Name, by); err != nil {
			return p.refuseConsumer(c, v, &v.Pause, err)
		}
		return after(c, v.Path, what)
	}
	v.Pause.Error = problem
	return p.showConsumer(c, http.StatusUnprocessableEntity, v)
}

func (p *Pages) consumerForm(c echo.Context) (*consumerView, error) {
	if err := c.Request().ParseForm(); err != nil {
		return nil, formError{err}
	}
	return p.consumerView(c)
}

func (p *Pages) refuseConsumer(c echo.Context, v *consumerView, form *formState, err error) error {
	status, why, _, ok := refusal(err)
	if !ok {
		return err
	}
	form.Error = why
	return p.showConsumer(c, status, v)
}

func (p *Pages) backfill(c echo.Context) error {
	v, err := p.consumerForm(c)
	if err != nil {
		return err
	}
	by, problem := action(c)
	form := &v.Backfill
	form.Reason, form.From, form.Until = by.Reason, c.FormValue("from"), c.FormValue("until")
	form.Appends, form.Force = c.FormValue("appends") != "", by.Force
	from, ok := start(form.From)
	if (!ok || form.From == "") && problem == "" {
		problem = "Where it begins " + timeForm + ", or the word beginning."
	}
	b := outbox.Backfill{From: from, Appends: form.Appends}
	if form.Until != "" {
		var err error
		if b.Until, err = parseTime(form.Until); err != nil && problem == "" {
			problem = "Where it ends " + timeForm + ", or be left out."
		}
	}
	if problem == "" {
		if _, err := p.operator.Backfill(c.Request().Context(), v.Name, b, by); err != nil {
			return p.refuseConsumer(c, v, &form.formState, err)
		}
		return after(c, v.Path, "backfill")
	}
	form.Error = problem
	return p.showConsumer(c, http.StatusUnprocessableEntity, v)
}

// stopBackfill ends a run of this consumer; one of another is not found here.
func (p *Pages) stopBackfill(c echo.Context) error {
	v, err := p.consumerForm(c)
	if err != nil {
		return err
	}
	id, err := pathNumber(c)
	if err != nil {
		return err
	}
	if run, err := p.operator.BackfillStatus(c.Request().Context(), id); err != nil {
		return err
	} else if run.Consumer != v.Name {
		return outbox.ErrNotFound
	}
	by, problem := action(c)
	v.Stop.Reason = by.Reason
	if problem == "" {
		if _, err := p.operator.StopBackfill(c.Request().Context(), id, by); err != nil {
			return p.refuseConsumer(c, v, &v.Stop, err)
		}
		return after(c, v.Path, "stopped")
	}
	v.Stop.Error = problem
	return p.showConsumer(c, http.StatusUnprocessableEntity, v)
}

// Done is how many of a run's events are done.
func (v *consumerView) Done(b outbox.BackfillStatus) int64 {
	return max(0, b.Events-b.Ahead-b.Held-b.Waiting)
}

// Left is about how long a run has still to go, by how it went so far; nothing where that cannot be said.
func (v *consumerView) Left(b outbox.BackfillStatus) string {
	finished := v.Done(b)
	if b.State != "running" || finished == 0 || v.PausedAt != nil {
		return ""
	}
	took := time.Since(b.StartedAt)
	return span(time.Duration(float64(took) / float64(finished) * float64(b.Events-finished)))
}
