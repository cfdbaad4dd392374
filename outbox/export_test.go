package outbox

import (
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/watch"
)

// OnlyHints makes each wait on the pool look once, and then only when it is told to.
func OnlyHints(pool *pgxpool.Pool) {
	waits.mu.Lock()
	defer waits.mu.Unlock()
	k := waitKey{pool, ""}
	waits.groups[k] = &waitGroup{
		Group: watch.Group[place]{Look: k.look, Passing: transient, First: time.Hour, Last: time.Hour}, waiting: 1,
	}
}

// SampleEvery has what is kept of consumers follow what happens so often, and all else five times more seldom.
func SampleEvery(cfg Config, every time.Duration) Config {
	cfg.sampleEvery = every
	return cfg
}

// LooksAlways has an admission look whenever it is asked, and forget what it saw when it cannot look.
func LooksAlways(a *Admission) *Admission {
	a.every, a.forgets = 0, 0
	return a
}
