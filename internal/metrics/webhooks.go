package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// endpoints are how those do to which events are sent. Where the database does not answer there is nothing of them: outbox_scrape_success says so.
type endpoints struct {
	list              func(context.Context) ([]webhooks.Endpoint, error)
	failing, disabled *prometheus.Desc
}

func newEndpoints(list func(context.Context) ([]webhooks.Endpoint, error)) *endpoints {
	labels := []string{"consumer"}
	return &endpoints{
		list:     list,
		failing:  prometheus.NewDesc("outbox_webhook_failing_seconds", "For how long nothing has got through to the webhook; 0 where it is well.", labels, nil),
		disabled: prometheus.NewDesc("outbox_webhook_disabled", "1 where the webhook is disabled, by somebody or by its failures, else 0.", labels, nil),
	}
}

// Describe sends what Collect gives.
func (e *endpoints) Describe(ch chan<- *prometheus.Desc) {
	ch <- e.failing
	ch <- e.disabled
}

// Collect looks.
func (e *endpoints) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	all, err := e.list(ctx)
	if err != nil {
		return
	}
	for _, w := range all {
		failing := 0.0
		if w.FailingSince != nil {
			failing = max(0, time.Since(*w.FailingSince).Seconds())
		}
		ch <- prometheus.MustNewConstMetric(e.failing, prometheus.GaugeValue, failing, w.Consumer)
		ch <- prometheus.MustNewConstMetric(e.disabled, prometheus.GaugeValue, one(w.State == webhooks.Disabled), w.Consumer)
	}
}
