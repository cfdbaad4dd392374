package pages

import (
	"context"
	"sync"
	"time"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	// sampleEvery is how old the newest sample may be before another is taken, and keepSamples for how long they are kept.
	sampleEvery = 2 * time.Second
	keepSamples = 10 * time.Minute
	// mostInflow is the longest part of the log that is counted for a rate: after a longer time without a look there is none.
	mostInflow = 500_000
	// samplingTakes is how long a sample may take: a backlog is counted event by event. Whoever waited in vain gets the last one.
	samplingTakes = 15 * time.Second
)

// sample is how the consumers were at a moment.
type sample struct {
	At        time.Time
	Consumers []sampled
}

type sampled struct {
	outbox.ConsumerStatus
	// Rate is how many deliveries a second were settled since the sample before; nil where that is not known.
	Rate *float64
}

// finished says how many deliveries each consumer has settled, and whether that goes on from what it said before: if not, the two are not
// to be compared.
type finished interface {
	count(ctx context.Context, now []outbox.ConsumerStatus) (settled map[string]int64, goesOn bool, err error)
}

// samples are those of the last ten minutes. They are taken only while somebody looks, by whoever looks first, so that nothing has to run
// in between.
type samples struct {
	operator *outbox.Operator
	finished finished
	mu       sync.Mutex
	kept     []sample
	counted  map[string]int64 // with the last sample
	tried    time.Time        // when one was to be taken last, and was or not
}

func newSamples(operator *outbox.Operator) *samples {
	return &samples{operator: operator, finished: &inflow{operator: operator}}
}

// look returns the samples after the moment. The last of them is not older than sampleEvery, unless the database could not say how it is:
// then it is the last that there was.
func (s *samples) look(ctx context.Context, after time.Time) ([]sample, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(ctx, sampleEvery-100*time.Millisecond); err != nil {
		return nil, err
	}
	first := len(s.kept)
	for first > 0 && s.kept[first-1].At.After(after) {
		first--
	}
	return append([]sample{}, s.kept[first:]...), nil
}

// names are those of the consumers, as they were within the last minute.
func (s *samples) names(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(ctx, time.Minute); err != nil {
		return nil, err
	}
	var names []string
	for _, c := range s.kept[len(s.kept)-1].Consumers {
		names = append(names, c.Name)
	}
	return names, nil
}

// refresh takes a sample where the last one is older than that. It fails where there is none at all.
func (s *samples) refresh(ctx context.Context, than time.Duration) error {
	if len(s.kept) > 0 && time.Since(s.tried) < than {
		return nil
	}
	err := s.take(ctx)
	s.tried = time.Now()
	if len(s.kept) > 0 {
		return nil
	}
	return err
}

// take is not ended by its client's going away: a cancelled query costs its connection.
func (s *samples) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), samplingTakes)
	defer cancel()
	now, err := s.operator.Consumers(ctx)
	if err != nil {
		return err
	}
	counted, goesOn, err := s.finished.count(ctx, now)
	if err != nil {
		return err
	}
	taken := sample{At: time.Now(), Consumers: make([]sampled, len(now))}
	for i, c := range now {
		taken.Consumers[i].ConsumerStatus = c
		before, known := s.counted[c.Name]
		if known && goesOn && len(s.kept) > 0 {
			rate := max(0, float64(counted[c.Name]-before)) / taken.At.Sub(s.kept[len(s.kept)-1].At).Seconds()
			taken.Consumers[i].Rate = &rate
		}
	}
	s.counted = counted
	for len(s.kept) > 0 && taken.At.Sub(s.kept[0].At) > keepSamples {
		s.kept = s.kept[1:]
	}
	s.kept = append(s.kept, taken)
	return nil
}

// inflow counts what is finished as what came into the log less what is still before a consumer. The two are read one after the other, so
// that a count may be off by what came in between; the next one is not.
type inflow struct {
	operator *outbox.Operator
	head     int64
	came     map[string]int64
}

func (f *inflow) count(ctx context.Context, now []outbox.ConsumerStatus) (map[string]int64, bool, error) {
	most := int64(mostInflow)
	if f.came == nil {
		most = 0
	}
	in, err := f.operator.Inflow(ctx, f.head, most)
	if err != nil {
		return nil, false, err
	}
	f.head = in.Head
	goesOn := f.came != nil && in.Events != nil
	if !goesOn {
		f.came = map[string]int64{}
	}
	settled := map[string]int64{}
	for _, c := range now {
		if goesOn {
			f.came[c.Name] += in.Events[c.Name]
		}
		settled[c.Name] = f.came[c.Name] - c.Lag - c.InFlight - c.Waiting - c.Dead
	}
	return settled, goesOn, nil
}
