package handlers

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/ratelimit"
)

// limited lets a request through as far as its address's limit goes, before anything is read, decoded or hashed for it.
func (a *api) limited(route string, next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := a.count(c, ratelimit.Of{Route: route, Kind: ratelimit.Address}, network(c)); err != nil {
			return err
		}
		return next(c)
	}
}

// limitedUser is for a route whose caller is known: repeats under an Idempotency-Key count as well, and so does what is refused.
func (a *api) limitedUser(route string, next func(c echo.Context, user uuid.UUID) error) func(c echo.Context, user uuid.UUID) error {
	return func(c echo.Context, user uuid.UUID) error {
		if err := a.count(c, ratelimit.Of{Route: route, Kind: ratelimit.Account}, user.String()); err != nil {
			return err
		}
		return next(c, user)
	}
}

// count counts a request, or refuses it. Where the database cannot be asked, the request fails as it would have a moment later.
func (a *api) count(c echo.Context, of ratelimit.Of, subject string) error {
	wait, known := a.limits.Known(of, subject)
	if !known {
		err := a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) (err error) {
			wait, err = a.limits.Take(ctx, conn.Conn(), of, subject)
			return err
		})
		if err != nil {
			return err
		}
	}
	if wait <= 0 {
		return nil
	}
	if a.rateLimited != nil {
		a.rateLimited(of.Route, of.Kind)
	}
	return rateLimited(wait)
}

// network is where the request came from, as far as limits tell one from another.
func network(c echo.Context) string { return ratelimit.Network(c.RealIP()).String() }

// rateLimited does not say which limit it was: that of an account is the same whether there is one.
func rateLimited(wait time.Duration) *problem {
	return &problem{
		status: http.StatusTooManyRequests, slug: "rate-limited", title: "There were too many requests",
		detail: "there were too many requests of this kind; nothing was done, and the header Retry-After says in how many seconds the next may be taken",
		header: map[string]string{"Retry-After": strconv.Itoa(int(math.Ceil(wait.Seconds())))},
	}
}
