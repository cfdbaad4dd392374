package pages

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"
)

// policy lets a page load what the binary serves, and nothing else. It allows no inline script or style, no eval, and no frame around it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// riverPolicy is the policy for River's UI, of which the style sheet of the messages that it shows is made by its scripts.
var riverPolicy = strings.Replace(policy, "style-src 'self'", "style-src 'self' 'unsafe-inline'", 1)

// What GuardRiver refuses.
var (
	ErrOtherSite = errors.New("pages: the request came from another site")
	ErrSignedOut = errors.New("pages: there is no session")
)

// maxForm is above what the data of an event can have in a form's encoding.
const maxForm = 4 << 20

const actorKey = "page-actor"

// Serves reports whether the request is one for the pages, by its route or, where there is none, by its path.
func Serves(c echo.Context) bool { return below(c, Root) }

// ServesRiver is Serves for River's UI.
func ServesRiver(c echo.Context) bool { return below(c, River) }

func below(c echo.Context, root string) bool {
	path := c.Path()
	if path == "" {
		path = c.Request().URL.Path
	}
	return within(path, root)
}

func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// Quiet reports whether the request is one that a page makes by itself, and often: nobody looks for it in a log.
func Quiet(c echo.Context) bool {
	if c.Request().Method != http.MethodGet {
		return false
	}
	return ServesRiver(c) || Serves(c) && (c.Path() == dataPath || c.Path() == staticPath || fromHTMX(c))
}

func fromHTMX(c echo.Context) bool { return c.Request().Header.Get("HX-Request") == "true" }

// Guard stands before every route of the pages: without a session, all that they lead to is the login. A request that another site
// made a browser send is refused.
func (p *Pages) Guard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		secure(c, policy)
		if c.Path() == staticPath {
			return next(c)
		}
		if err := p.origin.Check(c.Request()); err != nil {
			return p.refuse(c, Failure{
				http.StatusForbidden, "This request came from another site",
				"A form of these pages has to be sent from these pages. Nothing was changed.",
			})
		}
		name, signedIn := p.sessions.actor(c.Request())
		switch {
		case signedIn:
			c.Set(actorKey, name)
		case c.Path() != loginPath:
			return p.toLogin(c)
		}
		c.Request().Body = http.MaxBytesReader(c.Response(), c.Request().Body, maxForm)
		err := next(c)
		var unread formError
		switch {
		case err == nil:
			return nil
		case errors.Is(c.Request().Context().Err(), context.Canceled):
			return err // the client has left: there is no page to show, and it is nobody's fault
		case errors.As(err, &unread):
			return p.refuse(c, unreadable)
		}
		return p.refuse(c, p.explain(c, err))
	}
}

// GuardRiver stands before all routes of River's UI as Guard stands before those of the pages: without a session a page leads to the login.
// All else that it refuses is for programs, and the caller gives it a form: ErrSignedOut, ErrOtherSite.
func (p *Pages) GuardRiver(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		secure(c, riverPolicy)
		r := c.Request()
		if err := p.origin.Check(r); err != nil {
			return ErrOtherSite
		}
		name, signedIn := p.sessions.actor(r)
		switch {
		case signedIn:
			c.Set(actorKey, name)
			return next(c)
		case r.Method == http.MethodGet && !strings.HasPrefix(r.URL.Path, River+"/api/"):
			return p.toLogin(c)
		}
		return ErrSignedOut
	}
}

func secure(c echo.Context, policy string) {
	header := c.Response().Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Frame-Options", "DENY")
	// Not no-referrer: with that, a form's Origin is null, and an own form could not be told from another site's.
	header.Set("Referrer-Policy", "same-origin")
}

// toLogin sends the client to the login, and from there back to the page that it asked for.
func (p *Pages) toLogin(c echo.Context) error {
	to := loginPath
	if r := c.Request(); r.Method == http.MethodGet && c.Path() != "" && c.Path() != dataPath {
		to += "?next=" + url.QueryEscape(r.URL.RequestURI())
	}
	if fromHTMX(c) {
		// htmx would follow a redirect, and put the login where the part of a page belongs.
		c.Response().Header().Set("HX-Redirect", loginPath)
		return c.NoContent(http.StatusUnauthorized)
	}
	return c.Redirect(http.StatusSeeOther, to)
}

// wayBack is where the login leads: to a page, or to one of River's, and to nothing outside of these.
func wayBack(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || strings.ContainsAny(next, "\\\x00\r\n\t") ||
		strings.Contains(u.Path, "//") || strings.Contains(u.Path, "..") || !within(u.Path, Root) && !within(u.Path, River) {
		return Root
	}
	if u.Path == loginPath || u.Path == logoutPath {
		return Root
	}
	return u.RequestURI()
}

// Actor is the name in the session that a guard has let in.
func Actor(c echo.Context) string { return actor(c) }

func actor(c echo.Context) string {
	name, _ := c.Get(actorKey).(string)
	return name
}
