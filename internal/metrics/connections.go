package metrics

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Connections tells of those of a listener; it is to be called once for each.
func (m *Metrics) Connections(listener string, of interface {
	Open() int
	Dropped() int64
},
) error {
	labels := prometheus.Labels{"listener": listener}
	for _, c := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "outbox_http_connections", Help: "Connections of clients that are open.", ConstLabels: labels,
		}, func() float64 { return float64(of.Open()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "outbox_http_dropped_connections_total", Help: "Connections that were closed because there were too many: those that were waited for the longest.", ConstLabels: labels,
		}, func() float64 { return float64(of.Dropped()) }),
	} {
		if err := m.registry.Register(c); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
	}
	return nil
}
