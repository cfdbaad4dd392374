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
	// samplingTakes is how long a sample may take. Whoever waited in vain gets the last one.
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

// samples are those of the last ten minutes. They are taken only while somebody looks, by whoever looks first, so that nothing has to run
// in between.
type samples struct {
	operator *outbox.Operator
	mu       sync.Mutex
	kept     []sample
	tried    time.Time // when one was to be taken last, and was or not
}

func newSamples(operator *outbox.Operator) *samples {
	return &samples{operator: operator}
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
	taken := sample{At: time.Now(), Consumers: make([]sampled, len(now))}
	for i, c := range now {
		taken.Consumers[i] = sampled{c, s.rate(c, taken.At)}
	}
	for len(s.kept) > 0 && taken.At.Sub(s.kept[0].At) > keepSamples {
		s.kept = s.kept[1:]
	}
	s.kept = append(s.kept, taken)
	return nil
}

// rate is how many deliveries a second were settled since the last sample, or nil where that does not have the consumer. A backfill, which
// takes up anew what was settled, counts as none.
func (s *samples) rate(c outbox.ConsumerStatus, now time.Time) *float64 {
	if len(s.kept) == 0 {
		return nil
	}
	last := s.kept[len(s.kept)-1]
	for _, before := range last.Consumers {
		if before.Name == c.Name {
			rate := max(0, float64(settled(c)-settled(before.ConsumerStatus))) / now.Sub(last.At).Seconds()
			return &rate
		}
	}
	return nil
}

// settled is how many deliveries of a consumer are behind it, ever.
func settled(c outbox.ConsumerStatus) int64 { return c.Passed - c.InFlight - c.Waiting - c.Dead }
