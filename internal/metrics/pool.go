package metrics

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// pool tells of the connections to the database. A Stat is a copy that costs nothing.
type pool struct {
	stat func() *pgxpool.Stat

	connections, most, acquires, waits, waited, canceled, opened *prometheus.Desc
}

func newPool(p *pgxpool.Pool) *pool {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &pool{
		stat:        p.Stat,
		connections: d("outbox_pool_connections", "Connections of the pool by state: acquired, idle or constructing.", "state"),
		most:        d("outbox_pool_max_connections", "How many connections the pool may have."),
		acquires:    d("outbox_pool_acquires_total", "Connections that were taken out of the pool."),
		waits:       d("outbox_pool_waits_total", "Acquires that had to wait, because the pool had none to give."),
		waited:      d("outbox_pool_wait_seconds_total", "Time that acquires waited for a connection."),
		canceled:    d("outbox_pool_canceled_acquires_total", "Acquires that were given up while they waited."),
		opened:      d("outbox_pool_opened_connections_total", "Connections that the pool has opened."),
	}
}

// Describe sends what Collect gives.
func (p *pool) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.connections, p.most, p.acquires, p.waits, p.waited, p.canceled, p.opened} {
		ch <- d
	}
}

// Collect reads the pool's own numbers.
func (p *pool) Collect(ch chan<- prometheus.Metric) {
	s := p.stat()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	send(p.connections, prometheus.GaugeValue, float64(s.AcquiredConns()), "acquired")
	send(p.connections, prometheus.GaugeValue, float64(s.IdleConns()), "idle")
	send(p.connections, prometheus.GaugeValue, float64(s.ConstructingConns()), "constructing")
	send(p.most, prometheus.GaugeValue, float64(s.MaxConns()))
	send(p.acquires, prometheus.CounterValue, float64(s.AcquireCount()))
	send(p.waits, prometheus.CounterValue, float64(s.EmptyAcquireCount()))
	send(p.waited, prometheus.CounterValue, s.EmptyAcquireWaitTime().Seconds())
	send(p.canceled, prometheus.CounterValue, float64(s.CanceledAcquireCount()))
	send(p.opened, prometheus.CounterValue, float64(s.NewConnsCount()))
}
