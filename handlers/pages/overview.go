package pages

import (
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type overviewView struct {
	Consumers []sampled
	// Stale is when the numbers were taken, where that is long ago.
	Stale  *time.Time
	Dead   int64
	Paused []string
	// Behind is the consumer whose oldest event is older than every other's, and than lateAfter.
	Behind *sampled
	Causes []outbox.LetterGroup
	// Refused is why new work is, where it is.
	Refused *outbox.Backlog
	// Calm says that nothing needs anybody.
	Calm bool
}

// staleAfter is the age of numbers that are not those of now.
const staleAfter = 10 * time.Second

// lateAfter is the age of an event that a healthy consumer has long reached.
const lateAfter = 30

func (p *Pages) overview(c echo.Context) error {
	ctx := c.Request().Context()
	kept, err := p.samples.look(ctx, time.Time{})
	if err != nil {
		return err
	}
	now := kept[len(kept)-1]
	v := overviewView{Consumers: now.Consumers}
	if time.Since(now.At) > staleAfter {
		v.Stale = &now.At
	}
	for i := range v.Consumers {
		s := &v.Consumers[i]
		v.Dead += s.Dead
		if s.PausedAt != nil {
			v.Paused = append(v.Paused, s.Name)
		}
		if s.OldestAge > lateAfter && (v.Behind == nil || s.OldestAge > v.Behind.OldestAge) {
			v.Behind = s
		}
	}
	if v.Causes, err = p.operator.LetterGroups(ctx, outbox.LetterFilter{State: "dead"}, nil, 5); err != nil {
		return err
	}
	if p.admission != nil {
		if b := p.admission.Backlog(ctx); b.Refuses {
			v.Refused = &b
		}
	}
	v.Calm = v.Refused == nil && v.Stale == nil && v.Dead == 0 && len(v.Causes) == 0 && len(v.Paused) == 0 && v.Behind == nil
	return p.render(c, http.StatusOK, "overview", "Overview", v)
}

type pointJSON struct {
	// At is in milliseconds since 1970.
	At        int64                `json:"at"`
	Consumers map[string]valueJSON `json:"consumers"`
}

type valueJSON struct {
	Rate *float64 `json:"rate"` // deliveries settled a second; null where it is not known
	Lag  int64    `json:"lag"`  // events
	Age  float64  `json:"age"`  // of the oldest, in seconds
}

// overviewData is what the plots show: the samples of the last ten minutes, or those after ?after, in milliseconds since 1970.
func (p *Pages) overviewData(c echo.Context) error {
	after := time.Now().Add(-keepSamples)
	if at, err := strconv.ParseInt(c.QueryParam("after"), 10, 64); err == nil && at > after.UnixMilli() {
		after = time.UnixMilli(at + 1)
	}
	kept, err := p.samples.look(c.Request().Context(), after)
	if err != nil {
		return err
	}
	points := make([]pointJSON, len(kept))
	for i, s := range kept {
		points[i] = pointJSON{s.At.UnixMilli(), map[string]valueJSON{}}
		for _, c := range s.Consumers {
			points[i].Consumers[c.Name] = valueJSON{c.Rate, c.Lag, c.OldestAge}
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"samples": points})
}
