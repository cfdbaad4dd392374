package pages

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	perPage   = 50
	topGroups = 10
)

var letterStates = []string{"dead", "replaying", "replayed", "dismissed"}

type lettersView struct {
	Filter       outbox.LetterFilter
	Since, Until string
	States       []string
	Consumers    []string
	Filtered     bool
	Groups       []outbox.LetterGroup
	MoreGroups   bool
	Letters      []outbox.LetterSummary
	Older        string
}

// letters is the list of dead letters. Where nothing else is asked for, of those that are dead, below their causes.
func (p *Pages) letters(c echo.Context) error {
	f := filter{c: c}
	v := lettersView{States: letterStates, Since: f.text("since"), Until: f.text("until"), Filter: outbox.LetterFilter{
		Consumer: f.text("consumer"), Type: f.text("type"), Key: f.text("key"), CorrelationID: f.text("correlation_id"),
		State: f.oneOf("state", append([]string{"all"}, letterStates...)...), Error: f.text("error"), Fingerprint: f.text("fingerprint"),
		Since: f.time("since"), Until: f.time("until"),
	}}
	before := f.cursor()
	if f.refuse != nil {
		return p.refuse(c, *f.refuse)
	}
	state := v.Filter.State
	v.Filtered = v.Filter != outbox.LetterFilter{}
	switch state {
	case "":
		v.Filter.State = "dead"
	case "all":
		v.Filter.State = ""
	}
	ctx := c.Request().Context()
	var err error
	if v.Letters, err = p.operator.Letters(ctx, v.Filter, before, perPage+1); err != nil {
		return err
	}
	if len(v.Letters) > perPage {
		v.Letters = v.Letters[:perPage]
		v.Older = older(c, v.Letters[perPage-1].ID)
	}
	if before == 0 && v.Filter.Fingerprint == "" && len(v.Letters) > 1 {
		if v.Groups, err = p.operator.LetterGroups(ctx, v.Filter, nil, topGroups+1); err != nil {
			return err
		}
		v.MoreGroups = len(v.Groups) > topGroups
		v.Groups = v.Groups[:min(len(v.Groups), topGroups)]
	}
	if v.Consumers, err = p.samples.names(ctx); err != nil {
		return err
	}
	if v.Filter.State = state; state == "" {
		v.Filter.State = "dead"
	}
	return p.render(c, http.StatusOK, "letters", "Dead letters", v)
}
