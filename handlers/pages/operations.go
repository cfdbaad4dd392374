package pages

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type operationsView struct {
	Operations []operationView
	Older      string
}

type operationView struct {
	*outbox.OperationDetail
	Path string
	Stop formState
}

func operationPath(id int64) string { return fmt.Sprintf("%s/operations/%d", Root, id) }

// Settled is of how many letters it is known what has become of them.
func (v operationView) Settled() int64 { return v.Succeeded + v.FailedAgain + v.Skipped }

// Open says that an operator can stop it.
func (v operationView) Open() bool { return v.State == "canary" || v.State == "running" }

// Chosen is its filter in words.
func (v operationView) Chosen() string {
	var f map[string]string
	if json.Unmarshal(v.Filter, &f) != nil {
		return string(v.Filter)
	}
	var said []string
	for name, value := range f {
		if value != "" && name != "state" {
			said = append(said, name+" "+value)
		}
	}
	if len(said) == 0 {
		return "all dead letters"
	}
	slices.Sort(said)
	return strings.Join(said, ", ")
}

func (p *Pages) operations(c echo.Context) error {
	f := filter{value: c.QueryParam}
	before := f.cursor()
	if f.refuse != nil {
		return p.refuse(c, *f.refuse)
	}
	all, err := p.operator.Operations(c.Request().Context(), before, perPage+1)
	if err != nil {
		return err
	}
	var v operationsView
	if len(all) > perPage {
		all = all[:perPage]
		v.Older = older(here(c), all[perPage-1].ID)
	}
	for _, o := range all {
		v.Operations = append(v.Operations, operationView{OperationDetail: &outbox.OperationDetail{Operation: o}, Path: operationPath(o.ID)})
	}
	return p.render(c, http.StatusOK, "operations", "Operations", v)
}

// replayAll begins to send all dead letters again that the filter chooses which stands in the form.
func (p *Pages) replayAll(c echo.Context) error {
	if err := c.Request().ParseForm(); err != nil {
		return formError{err}
	}
	f := filter{value: c.FormValue}
	b := outbox.BulkReplay{Filter: f.letterFilter(), NoCanary: c.FormValue("canary") == ""}
	if f.refuse != nil {
		return p.refuse(c, *f.refuse)
	}
	by, problem := action(c)
	v := lettersView{Reason: by.Reason, Rate: c.FormValue("rate"), Canary: !b.NoCanary, Problem: problem}
	rate, err := strconv.Atoi(strings.TrimSpace(v.Rate))
	if err != nil || rate < 1 || rate > outbox.MaxReplayRate {
		v.Problem = fmt.Sprintf("The rate must be 1 to %d letters a second.", outbox.MaxReplayRate)
	}
	b.Rate = rate
	if v.Problem != "" {
		return p.showLetters(c, http.StatusUnprocessableEntity, &f, v)
	}
	operation, err := p.operator.ReplayAll(c.Request().Context(), b, by)
	if err != nil {
		status, why, _, ok := refusal(err)
		if !ok {
			return err
		}
		v.Problem = why
		return p.showLetters(c, status, &f, v)
	}
	return after(c, operationPath(operation.ID), "operation")
}

func (p *Pages) operation(c echo.Context) error {
	v, err := p.operationView(c)
	if err != nil {
		return err
	}
	// Who watches it looks at the overview next, and for what it did there.
	if _, err := p.samples.look(c.Request().Context(), time.Now()); err != nil {
		return err
	}
	return p.showOperation(c, http.StatusOK, v)
}

func (p *Pages) operationView(c echo.Context) (v operationView, err error) {
	id, err := pathNumber(c)
	if err != nil {
		return v, err
	}
	v.Path = operationPath(id)
	v.OperationDetail, err = p.operator.Operation(c.Request().Context(), id)
	return v, err
}

func (p *Pages) showOperation(c echo.Context, status int, v operationView) error {
	return p.render(c, status, "operation", fmt.Sprintf("Operation %d", v.ID), v)
}

func (p *Pages) stopOperation(c echo.Context) error {
	if err := c.Request().ParseForm(); err != nil {
		return formError{err}
	}
	v, err := p.operationView(c)
	if err != nil {
		return err
	}
	by, problem := action(c)
	v.Stop.Reason, v.Stop.Error = by.Reason, problem
	status := http.StatusUnprocessableEntity
	if problem == "" {
		if _, err := p.operator.StopOperation(c.Request().Context(), v.ID, by); err == nil {
			return after(c, v.Path, "stopped")
		} else if status, v.Stop.Error, _, _ = refusal(err); status == 0 {
			return err
		}
		if v.OperationDetail, err = p.operator.Operation(c.Request().Context(), v.ID); err != nil {
			return err
		}
	}
	return p.showOperation(c, status, v)
}
