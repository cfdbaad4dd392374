package workers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/riverqueue/river"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// leaveTime is how long to wait at a time for the running jobs of a queue that is given up. River begins and ends no other queue meanwhile.
const leaveTime = 100 * time.Millisecond

// roster is which consumers this process works, and which queues it has at River for that.
type roster struct {
	changing sync.Mutex // one change at a time; it is held over what waits
	mu       sync.RWMutex
	covered  map[string]bool // consumers, and whether their queues are wanted
	worked   map[string]place
}

// place is a queue that River works.
type place struct {
	consumer   string
	maxWorkers int
	leaving    bool // its jobs are running out; it takes up no more
}

func newRoster() *roster { return &roster{covered: map[string]bool{}, worked: map[string]place{}} }

// works reports whether the consumer's queues are worked. It is safe to call at any time.
func (r *roster) works(consumer string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.covered[consumer]
}

// queues are those that are worked, with the relay's. It is safe to call at any time.
func (r *roster) queues() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := []string{outbox.RelayQueue}
	for queue, p := range r.worked {
		if !p.leaving {
			all = append(all, queue)
		}
	}
	slices.Sort(all)
	return all
}

// unsettled reports whether some queue is not as it is to be yet, or some consumer is left out.
func (r *roster) unsettled() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, p := range r.worked {
		if p.leaving {
			return true
		}
	}
	for _, covered := range r.covered {
		if !covered {
			return true
		}
	}
	return false
}

func (r *roster) set(queue string, p place, worked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if worked {
		r.worked[queue] = p
	} else {
		delete(r.worked, queue)
	}
}

// cover works the queues of all consumers but the uncovered ones: those are left to a build that handles all that
// their subscriptions let through. Queues of consumers that there are no more are given up.
func (w *Workers) cover(ctx context.Context, uncovered []string) error {
	w.roster.changing.Lock()
	defer w.roster.changing.Unlock()
	all := w.engine.Consumers()
	var errs []error
	for _, c := range all {
		want := !slices.Contains(uncovered, c.Name)
		if known, ok := w.roster.covered[c.Name]; !want && (known || !ok) {
			w.log.Error("consumer left to others: its subscriptions go beyond this program's code, or it was removed or not made yet", "consumer", c.Name)
		}
		w.noteCovered(c.Name, want)
		errs = append(errs,
			// Wake-ups are given again while a lane is behind: to poll for them often is of no use.
			w.work(ctx, outbox.DrainQueue(c.Name), c.Name, river.QueueConfig{
				MaxWorkers: min(c.Concurrency, drainsAtOnce), FetchPollInterval: w.lazyPoll,
			}, want),
			w.work(ctx, outbox.DeliverQueue(c.Name), c.Name, river.QueueConfig{MaxWorkers: c.Concurrency}, want))
	}
	there := func(name string) bool {
		return slices.ContainsFunc(all, func(c *outbox.Consumer) bool { return c.Name == name })
	}
	for name := range w.roster.covered {
		if !there(name) {
			w.log.Info("consumer given up: it is not there any more", "consumer", name)
			w.forget(name)
		}
	}
	for queue, p := range w.roster.worked {
		if !there(p.consumer) {
			errs = append(errs, w.leave(ctx, queue, p))
		}
	}
	return errors.Join(errs...)
}

func (w *Workers) noteCovered(consumer string, covered bool) {
	w.roster.mu.Lock()
	defer w.roster.mu.Unlock()
	w.roster.covered[consumer] = covered
}

func (w *Workers) forget(consumer string) {
	w.roster.mu.Lock()
	defer w.roster.mu.Unlock()
	delete(w.roster.covered, consumer)
}

// work begins or ends to work a queue, or works it with another number of workers.
func (w *Workers) work(ctx context.Context, queue, consumer string, cfg river.QueueConfig, want bool) error {
	p, worked := w.roster.worked[queue]
	if worked && (!want || p.leaving || p.maxWorkers != cfg.MaxWorkers) {
		if err := w.leave(ctx, queue, p); err != nil {
			return err
		}
		_, worked = w.roster.worked[queue]
	}
	if !want || worked {
		return nil
	}
	if err := w.client.Queues().Add(queue, cfg); err != nil {
		// River knows it all the same, and would not begin it again.
		return errors.Join(fmt.Errorf("workers: add queue %s: %w", queue, err), w.leave(ctx, queue, place{consumer: consumer}))
	}
	w.roster.set(queue, place{consumer: consumer, maxWorkers: cfg.MaxWorkers}, true)
	return nil
}

// leave takes up no more jobs of a queue. It is at River until those that run have ended, which the next call may come to see.
func (w *Workers) leave(ctx context.Context, queue string, p place) error {
	p.leaving = true
	w.roster.set(queue, p, true)
	waiting, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	switch err := w.client.Queues().Remove(waiting, queue); {
	case err == nil:
		w.roster.set(queue, p, false)
	case !errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("workers: remove queue %s: %w", queue, err)
	}
	return nil
}
