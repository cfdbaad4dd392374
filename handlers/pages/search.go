package pages

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const searchLimit = 10

type searchView struct {
	Query string
	Error string
	// Asked says that Timelines are what was found for Query.
	Asked     bool
	Timelines []timelineView
	Open      int   // deliveries and events of all of them that have not happened
	Next      int64 // where the next page of results begins, or 0
}

func (p *Pages) searchForm(c echo.Context) error {
	return p.render(c, http.StatusOK, "search", "Timelines", searchView{})
}

// search takes what it looks for in its body: an address has no place in a URL, which proxies and logs keep. One timeline is shown at its
// own address; of several, all is on this page.
func (p *Pages) search(c echo.Context) error {
	if err := c.Request().ParseForm(); err != nil {
		return formError{err}
	}
	v := searchView{Query: strings.TrimSpace(c.FormValue("query"))}
	before, err := strconv.ParseInt(c.FormValue("cursor"), 10, 64)
	switch {
	case v.Query == "" || !plain(v.Query, 255):
		v.Error = "Type an address, a user's id, a correlation id, an event's id or a key, of at most 255 bytes."
	case c.FormValue("cursor") != "" && (err != nil || before < 1):
		v.Error = "The place to go on from cannot be read. Search again."
	}
	if v.Error != "" {
		return p.render(c, http.StatusUnprocessableEntity, "search", "Timelines", v)
	}
	ctx := c.Request().Context()
	what, err := p.find(ctx, v.Query)
	if err != nil {
		return err
	}
	found, err := p.operator.Search(ctx, what, before, searchLimit)
	if err != nil {
		return err
	}
	if len(found.Timelines) == 1 && found.Next == 0 && before == 0 {
		return c.Redirect(http.StatusSeeOther, Root+"/trace/"+url.PathEscape(found.Timelines[0].CorrelationID))
	}
	v.Asked, v.Next = true, found.Next
	for i := range found.Timelines {
		t := newTimeline(&found.Timelines[i])
		v.Timelines = append(v.Timelines, t)
		v.Open += len(t.Open)
	}
	return p.render(c, http.StatusOK, "search", "Timelines", v)
}

// trace is the timeline of a correlation id.
func (p *Pages) trace(c echo.Context) error {
	id := c.Param("correlation_id")
	if !outbox.ValidCorrelationID(id) {
		return outbox.ErrNotFound
	}
	t, err := p.operator.Trace(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return p.render(c, http.StatusOK, "trace", "Timeline", newTimeline(t))
}
