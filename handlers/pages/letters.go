package pages

import (
	"net/http"
	"net/url"
	"strconv"

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
	List         string // the list's URL
	Older        string

	// Bulk is the filter for the form that sends all of its letters again; none, where they are not dead. The rest is what was typed into it,
	// and why it was refused.
	Bulk            []field
	Reason, Problem string
	Rate            string
	Canary          bool
}

// field is a hidden one of a form.
type field struct{ Name, Value string }

// bulkNames are what a bulk replay can be narrowed by.
var bulkNames = []string{"consumer", "type", "key", "correlation_id", "since", "until", "error", "fingerprint"}

// letters is the list of dead letters. Where nothing else is asked for, of those that are dead, below their causes.
func (p *Pages) letters(c echo.Context) error {
	f := filter{value: c.QueryParam}
	return p.showLetters(c, http.StatusOK, &f, lettersView{Rate: strconv.Itoa(outbox.DefaultReplayRate), Canary: true})
}

// letterFilter reads the filter of letters.
func (f *filter) letterFilter() outbox.LetterFilter {
	return outbox.LetterFilter{
		Consumer: f.text("consumer"), Type: f.text("type"), Key: f.text("key"), CorrelationID: f.text("correlation_id"),
		Error: f.text("error"), Fingerprint: f.text("fingerprint"), Since: f.time("since"), Until: f.time("until"),
	}
}

func (p *Pages) showLetters(c echo.Context, status int, f *filter, v lettersView) error {
	list := url.URL{Path: Root + "/letters"}
	q := url.Values{}
	for _, name := range append([]string{"state", "cursor"}, bulkNames...) {
		if value := f.text(name); value != "" {
			q.Set(name, value)
		}
	}
	list.RawQuery = q.Encode()
	v.List = list.RequestURI()
	v.States, v.Since, v.Until, v.Filter = letterStates, f.text("since"), f.text("until"), f.letterFilter()
	v.Filter.State = f.oneOf("state", append([]string{"all"}, letterStates...)...)
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
		v.Older = older(list, v.Letters[perPage-1].ID)
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
	if v.Filter.State == "dead" && len(v.Letters) > 0 {
		for _, name := range bulkNames {
			v.Bulk = append(v.Bulk, field{name, f.text(name)})
		}
	}
	return p.render(c, status, "letters", "Dead letters", v)
}
