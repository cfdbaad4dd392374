// Package metrics is what /metrics answers: what this process has counted, its pool, and what the leading relay keeps in the database.
// Labels are names of consumers, routes, queues, states and outcomes, of which there are few: no key, id, address or message is among them.
package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgoutbox/pgoutbox/internal/ratelimit"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// Config is what the metrics are of.
type Config struct {
	Pool *pgxpool.Pool
	// Stats reads what is kept in the database; its context ends after two seconds.
	Stats func(context.Context) (*outbox.Stats, error)
	// Admission, where there is one, is what new work is refused by.
	Admission *outbox.Admission
	// Webhooks, where there are any, lists them; its context ends after two seconds.
	Webhooks func(context.Context) ([]webhooks.Endpoint, error)
	// Build names the running code.
	Build string
	// Logger is told when the database does not answer, and when it does again.
	Logger *slog.Logger
}

// Metrics are those of one process. Safe for concurrent use.
type Metrics struct {
	*engine  // an outbox.Observer
	http     *prometheus.HistogramVec
	limited  *prometheus.CounterVec
	registry *prometheus.Registry
	handler  http.Handler
}

// atOnce is how many scrapes are answered at a time: each takes a connection of the pool.
const atOnce = 2

// New returns the metrics, in a registry of their own.
func New(cfg Config) (*Metrics, error) {
	m := &Metrics{engine: newEngine(), http: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "outbox_http_request_duration_seconds",
		Help: "How long HTTP requests took, by the route's pattern and the class of the status; what waited for Prefer: wait is among them.",
		// With 30 s, the longest wait, as the last.
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"listener", "method", "route", "status"}), limited: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outbox_rate_limited_total", Help: "Requests of customers that were refused because there were too many, by the limit.",
	}, []string{"route", "kind"})}
	for _, of := range ratelimit.All() {
		m.limited.WithLabelValues(of.Route, of.Kind) // from 0, so that the first one shows
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "outbox_build_info", Help: "Always 1; the label names the running code.", ConstLabels: prometheus.Labels{"version": cfg.Build},
	})
	build.Set(1)
	all := append(
		m.all(), m.http, m.limited, build, newPool(cfg.Pool), newStats(cfg.Stats, cfg.Logger),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	if cfg.Admission != nil {
		all = append(all, newAdmission(cfg.Admission))
	}
	if cfg.Webhooks != nil {
		all = append(all, newEndpoints(cfg.Webhooks))
	}
	m.registry = prometheus.NewRegistry()
	for _, c := range all {
		if err := m.registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	// Not compressed: a scrape is small, and of an Accept-Encoding that leaves nothing to choose an error is logged each time.
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: atOnce, DisableCompression: true, ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn), // most of it tells of a scraper that has left
	})
	return m, nil
}

// Handler answers a scrape. While the database does not answer, what the process itself knows is answered all the same.
func (m *Metrics) Handler() http.Handler { return m.handler }

// Requests returns what is told of the requests of a listener: their methods and routes are patterns, of which there are few.
func (m *Metrics) Requests(listener string) func(method, route string, status int, took time.Duration) {
	return func(method, route string, status int, took time.Duration) {
		m.http.WithLabelValues(listener, method, route, strconv.Itoa(status/100)+"xx").Observe(took.Seconds())
	}
}

// RateLimited is told of a request that a limit refused: its route and kind are those of OUTBOX_RATE_LIMITS.
func (m *Metrics) RateLimited(route, kind string) { m.limited.WithLabelValues(route, kind).Inc() }
