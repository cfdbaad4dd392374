package pages

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/pgoutbox/pgoutbox/internal/ratelimit"
)

const (
	// guessBurst attempts to log in are free, then one every guessEvery.
	guessBurst = 10
	guessEvery = 10 * time.Second
	// maxGuessers is how many addresses are told from each other; what comes from others then counts as coming from one.
	maxGuessers = 4096
)

// guesses limits the attempts to log in, right and wrong ones, for each address, in this process alone. It is not counted in the database, as
// the customers' attempts are: operators sign in by tokens that are not guessed, and do so most urgently when the database is away. Its zero
// value is ready.
type guesses struct {
	mu sync.Mutex
	by map[netip.Prefix]*rate.Limiter
}

func (g *guesses) allow(address string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.by == nil {
		g.by = map[netip.Prefix]*rate.Limiter{}
	}
	from := ratelimit.Network(address)
	if g.by[from] == nil && len(g.by) >= maxGuessers {
		for known, l := range g.by {
			if l.Tokens() >= guessBurst {
				delete(g.by, known)
			}
		}
		if len(g.by) >= maxGuessers {
			from = netip.Prefix{}
		}
	}
	if g.by[from] == nil {
		g.by[from] = rate.NewLimiter(rate.Every(guessEvery), guessBurst)
	}
	return g.by[from].Allow()
}
