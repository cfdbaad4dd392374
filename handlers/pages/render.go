package pages

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
)

//go:embed templates
var templateFiles embed.FS

// templates are the pages by name, each with the layout and the parts that several have.
var templates = sync.OnceValue(func() map[string]*template.Template {
	all := map[string]*template.Template{}
	for _, name := range []string{
		"login", "failure", "overview", "letters", "letter", "operations", "operation", "search", "trace", "event", "consumers", "consumer", "audit", "webhooks", "webhook",
	} {
		all[name] = template.Must(template.New("layout.html").Funcs(functions).ParseFS(templateFiles,
			"templates/layout.html", "templates/parts.html", "templates/timeline.html", "templates/"+name+".html"))
	}
	return all
})

var functions = template.FuncMap{
	"asset":  asset,
	"clock":  clock,
	"stamp":  func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"ago":    func(t time.Time) string { return span(time.Since(t)) + " ago" },
	"span":   span,
	"secs":   func(seconds float64) string { return span(time.Duration(seconds * float64(time.Second))) },
	"number": number,
	"state":  stateName,
	"line":   firstLine,
	"pretty": pretty,
	"join":   strings.Join,
	"short":  func(id fmt.Stringer) string { return "…" + id.String()[24:] },
}

// view is what the layout shows.
type view struct {
	Title    string
	Sections []section
	Section  string // the path of the one that the page belongs to
	Actor    string
	Done     string
	Here     string // the page itself, for what asks for it again
	Main     any
}

// done says what an action did, once, on the page that it leads to.
var done = map[string]string{
	"replayed":  "The event was sent again. This page shows what becomes of it.",
	"edited":    "The event was sent again with the new data. This page shows what becomes of it.",
	"dismissed": "The event was given up for this consumer. What waited behind it goes on.",
	"redacted":  "What was named is redacted. That it was done, by whom and why, is in the audit.",
	"paused":    "The consumer is paused: its events stay where they are.",
	"resumed":   "The consumer goes on.",
	"backfill":  "The backfill has begun.",
	"stopped":   "It was stopped. What it has done stays done.",
	"operation": "The operation has begun. This page follows it.",
	"enabled":   "The webhook is enabled: what has waited for it is sent.",
	"disabled":  "The webhook is disabled: nothing is sent to it until it is enabled.",
	"changed":   "The webhook is changed.",
	"resent":    "What it was sent since then is sent again. The page of its consumer shows how far that is.",
	"removed":   "The webhook is removed.",
}

// after answers an action: it leads to a page, which says what was done.
func after(c echo.Context, path, what string) error {
	return c.Redirect(http.StatusSeeOther, path+"?done="+what)
}

func (p *Pages) render(c echo.Context, status int, name, title string, main any) error {
	v := view{
		Title: title, Sections: p.sections, Actor: actor(c), Done: done[c.QueryParam("done")], Main: main,
	}
	u := here(c)
	v.Here = u.RequestURI()
	for _, s := range p.sections {
		if path := c.Request().URL.Path; path == s.Path || s.Path != Root && strings.HasPrefix(path, s.Path+"/") {
			v.Section = s.Path
		}
	}
	if name == "trace" || name == "event" {
		v.Section = Root + "/search"
	}
	var page bytes.Buffer
	if err := templates()[name].Execute(&page, v); err != nil {
		return fmt.Errorf("render %s: %w", name, err)
	}
	return c.HTMLBlob(status, page.Bytes())
}

// here is the page's own URL, without what was done before it.
func here(c echo.Context) url.URL {
	u := *c.Request().URL
	q := u.Query()
	q.Del("done")
	u.RawQuery = q.Encode()
	return u
}

var unreadable = Failure{http.StatusBadRequest, "The form could not be read", "Nothing was changed. Go back and send it again."}

func (p *Pages) refuse(c echo.Context, f Failure) error {
	if c.Response().Committed {
		return nil
	}
	return p.render(c, f.Status, "failure", f.Title, f)
}
