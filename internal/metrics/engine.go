package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// engine counts what the workers of this process do.
type engine struct {
	processed, failures, setAside *prometheus.CounterVec
	batches, attempts             *prometheus.HistogramVec
	relayed                       prometheus.Counter
	leads                         prometheus.Gauge
}

func newEngine() *engine {
	return &engine{
		processed: counters("outbox_deliveries_total",
			"Events that were delivered to their consumer, by outcome: applied, or duplicate where they had been processed before.", "consumer", "outcome"),
		failures: counters("outbox_delivery_failures_total",
			"Attempts at an event that failed, by outcome: failed, free (for the database's sake; it does not count), or fenced (another attempt had taken over).",
			"consumer", "outcome"),
		setAside: counters("outbox_set_aside_total",
			"Events that were taken out of their lane, by reason: external, failed, suspect or scheduled (they got a job of their own), "+
				"or waiting (behind another event of their key).", "consumer", "reason"),
		batches: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "outbox_batch_duration_seconds", Help: "How long batches of a lane took, from the lane's lock to the commit.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"consumer"}),
		attempts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "outbox_attempt_duration_seconds", Help: "How long attempts at events with a job of their own took, the call to the outside included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"consumer"}),
		relayed: prometheus.NewCounter(prometheus.CounterOpts{Name: "outbox_relayed_events_total", Help: "Events that this process's relay moved into the log."}),
		leads:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "outbox_relay_leads", Help: "1 where this process's relay leads, else 0."}),
	}
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func (e *engine) all() []prometheus.Collector {
	return []prometheus.Collector{e.processed, e.failures, e.setAside, e.batches, e.attempts, e.relayed, e.leads}
}

// ObserveBatch counts what became of a batch's events.
func (e *engine) ObserveBatch(b outbox.BatchOutcome) {
	add(e.processed, b.Applied, b.Consumer, "applied")
	add(e.processed, b.Duplicate, b.Consumer, "duplicate")
	add(e.failures, b.Failed, b.Consumer, "failed")
	add(e.setAside, b.Failed, b.Consumer, "failed")
	add(e.setAside, b.Suspect, b.Consumer, "suspect")
	add(e.setAside, b.External, b.Consumer, "external")
	add(e.setAside, b.Scheduled, b.Consumer, "scheduled")
	add(e.setAside, b.Parked, b.Consumer, "waiting")
	e.batches.WithLabelValues(b.Consumer).Observe(b.Took.Seconds())
}

// add leaves out what does not happen, so that a scrape has no row for each thing that could.
func add(c *prometheus.CounterVec, n int, labels ...string) {
	if n > 0 {
		c.WithLabelValues(labels...).Add(float64(n))
	}
}

// ObserveAttempt counts an attempt.
func (e *engine) ObserveAttempt(consumer, outcome string, took time.Duration) {
	counter := e.failures
	if outcome == "applied" || outcome == "duplicate" {
		counter = e.processed
	}
	counter.WithLabelValues(consumer, outcome).Inc()
	e.attempts.WithLabelValues(consumer).Observe(took.Seconds())
}

// ObserveRelay counts what a batch of the relay moved.
func (e *engine) ObserveRelay(events int) { e.relayed.Add(float64(events)) }

// ObserveLead notes whether the relay of this process leads.
func (e *engine) ObserveLead(leads bool) {
	if leads {
		e.leads.Set(1)
	} else {
		e.leads.Set(0)
	}
}
