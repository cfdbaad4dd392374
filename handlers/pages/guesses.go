package pages

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// guessBurst attempts to log in are free, then one every guessEvery.
	guessBurst = 10
	guessEvery = 10 * time.Second
	// maxGuessers is how many addresses are told from each other; what comes from others then counts as coming from one.
	maxGuessers = 4096
)

// guesses limits the attempts to log in, right and wrong ones, for each address. Its zero value is ready.
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
	from := network(address)
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

// network is what one person may be given: an IPv4 address, or the 64 bits of an IPv6 one.
func network(address string) netip.Prefix {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits) // cannot fail: the bits are those of the address
	return prefix
}
