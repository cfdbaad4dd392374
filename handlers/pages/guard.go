package pages

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"
)

// policy lets a page load what the binary serves, and nothing else. It allows no inline script or style, no eval, and no frame around it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// maxForm is above what the data of an event can have in a form's encoding.
const maxForm = 4 << 20

const actorKey = "page-actor"

// Serves reports whether the request is one for the pages, by its route or, where there is none, by its path.
func Serves(c echo.Context) bool {
	path := c.Path()
	if path == "" {
		path = c.Request().URL.Path
	}
	return path == Root || strings.HasPrefix(path, Root+"/")
}

// Quiet reports whether the request is one that a page makes by itself, and often: nobody looks for it in a log.
func Quiet(c echo.Context) bool {
	return Serves(c) && c.Request().Method == http.MethodGet && (c.Path() == dataPath || c.Path() == staticPath || fromHTMX(c))
}

func fromHTMX(c echo.Context) bool { return c.Request().Header.Get("HX-Request") == "true" }

// Guard stands before every route of the pages: without a session, all that they lead to is the login. A request that another site
// made a browser send is refused.
func (p *Pages) Guard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		header := c.Response().Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Frame-Options", "DENY")
		// Not no-referrer: with that, a form's Origin is null, and an own form could not be told from another site's.
		header.Set("Referrer-Policy", "same-origin")
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
		case errors.As(err, &unread):
			return p.refuse(c, unreadable)
		}
		return p.refuse(c, p.explain(c, err))
	}
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

// wayBack is where the login leads: to a page, and to nothing outside of the pages.
func wayBack(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || strings.ContainsAny(next, "\\\x00\r\n\t") ||
		strings.Contains(u.Path, "//") || strings.Contains(u.Path, "..") || u.Path != Root && !strings.HasPrefix(u.Path, Root+"/") {
		return Root
	}
	if u.Path == loginPath || u.Path == logoutPath {
		return Root
	}
	return u.RequestURI()
}

func actor(c echo.Context) string {
	name, _ := c.Get(actorKey).(string)
	return name
}
