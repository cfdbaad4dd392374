package handlers

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/alexedwards/argon2id"
)

// hashing is OWASP's minimum for Argon2id: 19 MiB, two passes.
var hashing = &argon2id.Params{Memory: 19 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// hashWait is how long a request waits for its turn to hash.
const hashWait = 5 * time.Second

// passwords hashes a few passwords at a time: each takes a processor and 19 MiB for some time, and whoever signs up
// must not keep others from checking out.
type passwords struct {
	turns chan struct{}
	dummy func() (string, error)
	// compare takes as long as a hash, whatever comes of it.
	compare func(password, hash string) (bool, error)
}

func newPasswords(atATime int) *passwords {
	if atATime <= 0 {
		atATime = max(1, runtime.GOMAXPROCS(0)*3/4)
	}
	return &passwords{
		turns:   make(chan struct{}, atATime),
		dummy:   sync.OnceValues(func() (string, error) { return argon2id.CreateHash("nobody's password", hashing) }),
		compare: argon2id.ComparePasswordAndHash,
	}
}

func (p *passwords) hash(ctx context.Context, password string) (hash string, err error) {
	err = p.inTurn(ctx, func() error {
		hash, err = argon2id.CreateHash(password, hashing)
		return err
	})
	return hash, err
}

// match compares with the hash; an empty one matches nothing, and takes as long.
func (p *passwords) match(ctx context.Context, password, hash string) (ok bool, err error) {
	against := hash
	if hash == "" {
		if against, err = p.dummy(); err != nil {
			return false, fmt.Errorf("hash a password: %w", err)
		}
	}
	err = p.inTurn(ctx, func() error {
		ok, err = p.compare(password, against)
		return err
	})
	return ok && hash != "", err
}

func (p *passwords) inTurn(ctx context.Context, work func() error) error {
	timer := time.NewTimer(hashWait)
	defer timer.Stop()
	select {
	case p.turns <- struct{}{}:
	case <-timer.C:
		return unavailable("too many people are signing up or logging in")
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.turns }()
	if err := work(); err != nil {
		return fmt.Errorf("hash a password: %w", err)
	}
	return nil
}
