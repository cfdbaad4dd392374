package outbox

import "time"

// Observer is told what an engine does, for metrics: once for each batch and each attempt, and not for each event. Its methods are called
// from many goroutines at once, where the work is done, and must return at once. What it is told is committed.
type Observer interface {
	// ObserveBatch is told of a batch of a lane.
	ObserveBatch(BatchOutcome)
	// ObserveAttempt is told of an attempt at an event that has a job of its own. The outcome is applied, duplicate (it had been processed
	// before), failed, free (it failed for the database's sake, and does not count) or fenced (another attempt had taken over).
	ObserveAttempt(consumer, outcome string, took time.Duration)
	// ObserveRelay is told how many events a batch of the relay moved into the log.
	ObserveRelay(events int)
	// ObserveLead is told when a relay of this process takes the lead, and when it gives it up or loses it.
	ObserveLead(leads bool)
}

// BatchOutcome is what became of the events of a batch.
type BatchOutcome struct {
	Consumer string
	Took     time.Duration
	// Applied events were processed here, Duplicate ones had been before, and Failed ones are attempts that failed.
	Applied, Duplicate, Failed int
	// Suspect, External and Scheduled events got a job of their own, as the failed ones did: because processes died with them, because
	// their consumer calls the outside, and because they are not due. Parked ones wait behind others of their key from here on.
	Suspect, External, Scheduled, Parked int
}

// nobody is the Observer of an engine without one.
type nobody struct{}

func (nobody) ObserveBatch(BatchOutcome)                    {}
func (nobody) ObserveAttempt(string, string, time.Duration) {}
func (nobody) ObserveRelay(int)                             {}
func (nobody) ObserveLead(bool)                             {}

// observe tells of a batch that is committed. What was waiting before it, and waits on, is nothing new.
func (b *batch) observe(took time.Duration) {
	if b.done == 0 {
		return
	}
	o := BatchOutcome{
		Consumer: b.c.Name, Took: took, Applied: b.counts[applied], Duplicate: b.counts[duplicate], Failed: b.counts[failed],
		Suspect: b.counts[suspect], External: b.counts[external], Scheduled: b.counts[deferred],
	}
	if !b.released {
		o.Parked = b.counts[parked]
	}
	b.cfg.Observer.ObserveBatch(o)
}
