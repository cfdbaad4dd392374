package metrics

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// scrapeTimeout bounds the wait for the database. What the process itself has counted is answered without it.
const scrapeTimeout = 2 * time.Second

// stats are the numbers that the leading relay keeps in the database: one round trip a scrape, whatever there is to do.
type stats struct {
	read   func(context.Context) (*outbox.Stats, error)
	log    *slog.Logger
	broken atomic.Bool

	success, duration, age                                          *prometheus.Desc
	lag, oldest, inFlight, heldKeys, waiting, dead, letters, paused *prometheus.Desc
	alive, outbox, outboxOldest, logged, quarantined, jobs          *prometheus.Desc
}

func newStats(read func(context.Context) (*outbox.Stats, error), log *slog.Logger) *stats {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &stats{
		read: read, log: log,
		success:  d("outbox_scrape_success", "1 where the database answered this scrape in time, else 0: what is kept in it is missing then."),
		duration: d("outbox_scrape_duration_seconds", "How long the database took to answer this scrape."),
		age:      d("outbox_stats_age_seconds", "How long ago a leading relay last kept the numbers of consumers and jobs; it grows where none leads."),

		lag:      d("outbox_consumer_lag_events", "Events ahead of the consumer's cursors that it subscribes to.", "consumer"),
		oldest:   d("outbox_consumer_oldest_age_seconds", "Age of the oldest event ahead of the consumer's cursors; 0 where there is none.", "consumer"),
		inFlight: d("outbox_consumer_in_flight_events", "Events of the consumer that have a job of their own.", "consumer"),
		heldKeys: d("outbox_consumer_held_keys", "Keys that an event which failed, or is dead, holds up for the consumer.", "consumer"),
		waiting:  d("outbox_consumer_waiting_events", "Events of the consumer that wait behind others of their key.", "consumer"),
		dead:     d("outbox_consumer_dead_holds", "Dead events of the consumer that hold up their key.", "consumer"),
		letters:  d("outbox_consumer_dead_letters", "Dead letters of the consumer, also those whose keys went on.", "consumer"),
		paused:   d("outbox_consumer_paused", "1 where the consumer is paused, else 0.", "consumer"),

		alive:        d("outbox_relay_alive", "1 where a relay leads, in whatever process, else 0."),
		outbox:       d("outbox_relay_lag_events", "Rows of the outbox that are not relayed yet; counted up to 5000."),
		outboxOldest: d("outbox_relay_oldest_age_seconds", "Age of the first row of the outbox that is not relayed yet; 0 where there is none."),
		logged:       d("outbox_log_head_position", "Position of the last event in the log, which is how many were ever relayed."),
		quarantined:  d("outbox_quarantined_rows", "Rows that the log refused, and the later rows of their keys."),
		jobs:         d("outbox_jobs", "River's jobs by queue and state; queues that are not the engine's count as other.", "queue", "state"),
	}
}

// Describe sends what Collect gives.
func (s *stats) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		s.success, s.duration, s.age, s.lag, s.oldest, s.inFlight, s.heldKeys, s.waiting, s.dead, s.letters, s.paused,
		s.alive, s.outbox, s.outboxOldest, s.logged, s.quarantined, s.jobs,
	} {
		ch <- d
	}
}

// Collect reads what is kept.
func (s *stats) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	began := time.Now()
	got, err := s.read(ctx)
	gauge(s.duration, time.Since(began).Seconds())
	gauge(s.success, one(err == nil))
	if s.broken.Swap(err != nil) != (err != nil) { // one line an outage
		s.log.Warn("metrics: the database's part", "answered", err == nil, "error", err)
	}
	if err != nil {
		return
	}
	gauge(s.alive, one(got.Leads))
	gauge(s.outbox, float64(got.Outbox))
	gauge(s.outboxOldest, got.OutboxOldestAge)
	gauge(s.logged, float64(got.Head))
	for _, c := range got.Consumers {
		gauge(s.paused, one(c.Paused), c.Name)
		if !c.Counted {
			continue // rather nothing than a 0 that nobody counted
		}
		gauge(s.lag, float64(c.Lag), c.Name)
		gauge(s.oldest, c.OldestAge, c.Name)
		gauge(s.inFlight, float64(c.InFlight), c.Name)
		gauge(s.heldKeys, float64(c.HeldKeys), c.Name)
		gauge(s.waiting, float64(c.Waiting), c.Name)
		gauge(s.dead, float64(c.Dead), c.Name)
		gauge(s.letters, float64(c.Letters), c.Name)
	}
	if !got.Counted {
		return
	}
	gauge(s.age, got.Age)
	gauge(s.quarantined, float64(got.Quarantined))
	for _, j := range got.Jobs {
		gauge(s.jobs, float64(j.Jobs), j.Queue, j.State)
	}
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
