package pages

import (
	"context"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

const (
	// Root is where the pages are.
	Root = "/admin/ui"
	// River is where River's own UI is, where there is one: it is no page of these, but behind their login.
	River = "/admin/river"
)

// Config is what the pages need; all of it is required but for Admission, Webhooks and River.
type Config struct {
	Operator *outbox.Operator
	// Tokens let operators in; the value is the actor's name.
	Tokens map[string]string
	// Find says what to look for when a person types query.
	Find func(ctx context.Context, query string) (outbox.Search, error)
	// Admission, where there is one, is what new work is refused by.
	Admission *outbox.Admission
	// Webhooks, where they are kept, have pages of their own.
	Webhooks *webhooks.Store
	// Explain gives an error that no page knows its form, and leaves it for the request's log line.
	Explain func(c echo.Context, err error) Failure
	// River says that River's UI is mounted: the pages have a link to it.
	River bool
}

// Failure is an error as a page shows it.
type Failure struct {
	Status        int
	Title, Detail string
}

// Pages are the operators' pages. They are safe for concurrent use.
type Pages struct {
	operator  *outbox.Operator
	find      func(ctx context.Context, query string) (outbox.Search, error)
	explain   func(c echo.Context, err error) Failure
	sessions  sessions
	guesses   guesses
	admission *outbox.Admission
	webhooks  *webhooks.Store
	origin    *http.CrossOriginProtection
	samples   *samples
	sections  []section
}

// New returns the pages. Their routes are open until a Guard stands before them.
func New(cfg Config) *Pages {
	p := &Pages{
		operator: cfg.Operator, find: cfg.Find, explain: cfg.Explain, sessions: newSessions(cfg.Tokens),
		admission: cfg.Admission, webhooks: cfg.Webhooks,
		origin: http.NewCrossOriginProtection(), samples: newSamples(cfg.Operator), sections: sections,
	}
	if cfg.Webhooks != nil {
		beforeAudit := len(sections) - 1
		p.sections = slices.Insert(slices.Clone(sections), beforeAudit, section{"Webhooks", webhooksPath})
	}
	if cfg.River {
		p.sections = append(slices.Clip(p.sections), section{"Jobs", River + "/"})
	}
	return p
}

// OperatorOf is the name of the operator who has the token. All tokens are compared, in constant time: how long that takes says nothing of how
// much of a guess was right.
func (p *Pages) OperatorOf(token string) (name string, ok bool) {
	o, ok := p.sessions.withToken(token)
	return o.name, ok
}

// section is an entry of the navigation.
type section struct{ Name, Path string }

var sections = []section{
	{"Overview", Root},
	{"Dead letters", Root + "/letters"},
	{"Operations", Root + "/operations"},
	{"Timelines", Root + "/search"},
	{"Consumers", Root + "/consumers"},
	{"Audit", Root + "/audit"},
}

const (
	loginPath  = Root + "/login"
	logoutPath = Root + "/logout"
	dataPath   = Root + "/data/overview.json"
	staticPath = Root + "/static/:version/:file"
)

// Routes adds the pages to e.
func (p *Pages) Routes(e *echo.Echo) {
	e.GET(Root, p.overview)
	e.GET(Root+"/", func(c echo.Context) error { return c.Redirect(http.StatusSeeOther, Root) })
	e.GET(loginPath, p.loginForm)
	e.POST(loginPath, p.logIn)
	e.POST(logoutPath, p.logOut)
	e.GET(staticPath, static)
	e.GET(dataPath, p.overviewData)
	e.GET(Root+"/letters", p.letters)
	e.GET(Root+"/letters/:id", p.letter)
	e.POST(Root+"/letters/:id/replay", p.replay)
	e.POST(Root+"/letters/:id/rehearse", p.rehearse)
	e.POST(Root+"/letters/:id/dismiss", p.dismiss)
	e.POST(Root+"/letters/:id/redact", p.redact)
	e.GET(Root+"/operations", p.operations)
	e.POST(Root+"/operations", p.replayAll)
	e.GET(Root+"/operations/:id", p.operation)
	e.POST(Root+"/operations/:id/stop", p.stopOperation)
	e.GET(Root+"/search", p.searchForm)
	e.POST(Root+"/search", p.search)
	e.GET(Root+"/trace/:correlation_id", p.trace)
	e.GET(Root+"/events/:id", p.event)
	e.GET(Root+"/consumers", p.consumers)
	e.GET(Root+"/consumers/:name", p.consumer)
	e.POST(Root+"/consumers/:name/pause", p.pause)
	e.POST(Root+"/consumers/:name/resume", p.resume)
	e.POST(Root+"/consumers/:name/backfill", p.backfill)
	e.POST(Root+"/consumers/:name/backfills/:id/stop", p.stopBackfill)
	e.GET(Root+"/audit", p.audit)
	if p.webhooks != nil {
		p.webhookRoutes(e)
	}
}
