package metrics

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// admission is what this process's admission has seen. The database is asked no more often than the admission itself does.
type admission struct {
	of           *outbox.Admission
	age, refuses *prometheus.Desc
}

func newAdmission(of *outbox.Admission) *admission {
	return &admission{
		of:      of,
		age:     prometheus.NewDesc("outbox_admission_age_seconds", "For how long the oldest event has been on its way to a consumer that could take it.", nil, nil),
		refuses: prometheus.NewDesc("outbox_admission_refusing", "1 while new work is refused because what is there waits for too long, else 0.", nil, nil),
	}
}

// Describe sends what Collect gives.
func (a *admission) Describe(ch chan<- *prometheus.Desc) {
	ch <- a.age
	ch <- a.refuses
}

// Collect looks.
func (a *admission) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	seen := a.of.Backlog(ctx)
	ch <- prometheus.MustNewConstMetric(a.age, prometheus.GaugeValue, seen.Age.Seconds())
	ch <- prometheus.MustNewConstMetric(a.refuses, prometheus.GaugeValue, one(seen.Refuses))
}
