package handlers

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgoutbox/pgoutbox/internal/ratelimit"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// Config is what both listeners need.
type Config struct {
	// Pool is the database of the shop and of the outbox. Required.
	Pool *pgxpool.Pool
	// Logger gets one line per request. Nil: slog.Default().
	Logger *slog.Logger
	// TracerProvider makes a span of each request but probes. Nil: none are made, and no trace context of a caller is looked at.
	TracerProvider trace.TracerProvider
	// Ready says what keeps the process from its work, for /readyz; its context ends after two seconds. Nil: nothing.
	Ready func(ctx context.Context) error
	// Warnings says what is wrong with a process that can do its work, for /readyz; its context ends with Ready's. Nil: nothing.
	Warnings func(ctx context.Context) []string
	// Admission says whether /v1 takes work that writes; while it does not, that is answered with 503, and /readyz says degraded. Nil: it does.
	Admission *outbox.Admission
	// Dev has the switches of outbox dev. Nil: there are no /dev routes.
	Dev *DevTools
	// StripeWebhookSecrets verify what comes to /v1/webhooks/stripe: one of them has to. None: there is no such route.
	StripeWebhookSecrets []string
	// IPExtractor says which address a request came from. Nil: the one that the connection comes from, whatever the
	// request's headers claim; behind a proxy use echo.ExtractIPFromXFFHeader with the proxies that are trusted.
	IPExtractor echo.IPExtractor
	// Observe is told of each request when it is answered: its method (other, for one that HTTP does not have), the pattern of its route
	// (unmatched where there is none), its status, and how long it took. It must return at once. Nil: nobody is told.
	Observe func(method, route string, status int, took time.Duration)
	// RateLimits are what signups, logins and checkouts are limited to, for all processes on the database together. Nil: nothing is.
	RateLimits ratelimit.Limits
	// RateLimited is told of each request that was refused by a limit, and of which one. It must return at once. Nil: nobody is told.
	RateLimited func(route, kind string)
	// PasswordHashes is how many passwords are hashed at the same time. 0: three quarters of the processors, so that
	// a flood of signups leaves some to everything else.
	PasswordHashes int
}

// api holds what the API's handlers share.
type api struct {
	pool      *pgxpool.Pool
	queries   *shopdb.Queries
	passwords *passwords
	secrets   []string // of Stripe's webhooks
	plans     *states
	orderEnds *states

	limits      *ratelimit.Limiter
	rateLimited func(route, kind string)
}

// NewAPI returns the customers' listener: probes, /openapi.yaml and /docs, /v1 and, where Config.Dev is set, /dev.
func NewAPI(cfg Config) *echo.Echo {
	_, e := newAPI(cfg)
	return e
}

func newAPI(cfg Config) (*api, *echo.Echo) {
	e := newEcho(cfg)
	queries := shopdb.New()
	a := &api{
		pool: cfg.Pool, queries: queries, passwords: newPasswords(cfg.PasswordHashes), secrets: cfg.StripeWebhookSecrets,
		plans: newStates(cfg.Pool, queries.SubscriptionsStarted), orderEnds: newStates(cfg.Pool, queries.OrdersEnded),
		limits: ratelimit.New(cfg.RateLimits), rateLimited: cfg.RateLimited,
	}

	e.Use(admit(cfg.Admission))
	e.POST("/v1/signup", a.limited(ratelimit.Signup, a.signUp))
	e.POST("/v1/sessions", a.limited(ratelimit.Login, a.logIn))
	e.DELETE("/v1/sessions/current", a.asUser(a.logOut))
	e.GET("/v1/account", a.asUser(a.account))
	e.GET("/v1/products", a.products)
	e.POST("/v1/carts", a.asUser(a.createCart))
	e.GET("/v1/carts/:cart_id", a.asUser(a.cart))
	e.POST("/v1/carts/:cart_id/items", a.asUser(a.addItem))
	e.DELETE("/v1/carts/:cart_id/items/:sku", a.asUser(a.removeItem))
	e.POST("/v1/carts/:cart_id/checkout", a.limited(ratelimit.Checkout, a.asUser(a.limitedUser(ratelimit.Checkout, a.checkOut))))
	e.GET("/v1/orders", a.asUser(a.orders))
	e.GET("/v1/orders/:order_id", a.asUser(a.order))
	if len(a.secrets) > 0 {
		e.POST(webhookPath, a.stripeWebhook)
	}
	if cfg.Dev != nil {
		cfg.Dev.routes(e)
	}
	return a, e
}

// newEcho is what both listeners have: the way of every request, the probes, and what they say of themselves.
func newEcho(cfg Config) *echo.Echo {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.IPExtractor == nil {
		cfg.IPExtractor = echo.ExtractIPDirect()
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.StdLogger = slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn)
	e.IPExtractor = cfg.IPExtractor
	e.HTTPErrorHandler = writeError
	e.Use(observe(cfg.Logger, tracer(cfg.TracerProvider), cfg.Observe))

	h := health{ready: cfg.Ready, warnings: cfg.Warnings, admission: cfg.Admission}
	e.GET("/healthz", h.alive)
	e.GET("/readyz", h.readiness)
	docsRoutes(e)
	return e
}
