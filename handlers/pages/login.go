package pages

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

type loginView struct {
	Next  string
	Error string
}

func (p *Pages) loginForm(c echo.Context) error {
	next := wayBack(c.QueryParam("next"))
	if actor(c) != "" {
		return c.Redirect(http.StatusSeeOther, next)
	}
	return p.render(c, http.StatusOK, "login", "Sign in", loginView{Next: next})
}

func (p *Pages) logIn(c echo.Context) error {
	if err := c.Request().ParseForm(); err != nil {
		return formError{err}
	}
	next := wayBack(c.FormValue("next"))
	if !p.guesses.allow(c.RealIP()) {
		c.Response().Header().Set("Retry-After", "10")
		return p.render(c, http.StatusTooManyRequests, "login", "Sign in",
			loginView{next, "There were too many attempts from your address. Wait for ten seconds, then try again."})
	}
	who, ok := p.sessions.withToken(c.FormValue("token"))
	if !ok {
		return p.render(c, http.StatusUnauthorized, "login", "Sign in", loginView{next, "That is no operator's token."})
	}
	setCookie(c, who.seal(time.Now().Add(sessionLasts)), sessionLasts)
	return c.Redirect(http.StatusSeeOther, next)
}

func (p *Pages) logOut(c echo.Context) error {
	setCookie(c, "", 0)
	return c.Redirect(http.StatusSeeOther, loginPath)
}
