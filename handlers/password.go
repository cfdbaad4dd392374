package handlers

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/alexedwards/argon2id"
	"golang.org/x/text/unicode/norm"
)

// hashing is OWASP's minimum for Argon2id: 19 MiB, two passes.
var hashing = &argon2id.Params{Memory: 19 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

const (
	// hashWait is how long a request waits for its turn to hash.
	hashWait = 5 * time.Second
	// maxHashQueue is how many wait for each turn there is: some two seconds of work. Who comes then is told at once to come again.
	maxHashQueue = 64
)

// passwords hashes a few passwords at a time: each takes a processor and 19 MiB for some time, and whoever signs up
// must not keep others from checking out.
type passwords struct {
	turns   chan struct{}
	waiting atomic.Int64
	dummy   string // of no password, with the parameters of today
	// check takes as long as a hash, whatever comes of it.
	check func(password, hash string) (bool, *argon2id.Params, error)
}

func newPasswords(atATime int) *passwords {
	if atATime <= 0 {
		atATime = max(1, runtime.GOMAXPROCS(0)*3/4)
	}
	return &passwords{
		turns: make(chan struct{}, atATime),
		dummy: dummyHash(),
		check: argon2id.CheckHash,
	}
}

func dummyHash() string {
	salt, key := make([]byte, hashing.SaltLength), make([]byte, hashing.KeyLength)
	_, _ = rand.Read(salt) // it never fails
	_, _ = rand.Read(key)
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", hashing.Memory, hashing.Iterations, hashing.Parallelism,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

// normal is the form in which a password is counted, hashed and compared: systems differ in whether é is one character or two.
func normal(password string) string { return norm.NFC.String(password) }

func (p *passwords) hash(ctx context.Context, password string) (hash string, err error) {
	err = p.inTurn(ctx, func() error {
		hash, err = argon2id.CreateHash(normal(password), hashing)
		return err
	})
	return hash, err
}

// match compares with the hash; an empty one matches nothing, and takes as long. Where the password matches a hash that was made with other
// than today's parameters, better is one to keep in its place.
func (p *passwords) match(ctx context.Context, password, hash string) (ok bool, better string, err error) {
	against := hash
	if hash == "" {
		against = p.dummy
	}
	err = p.inTurn(ctx, func() error {
		matches, params, err := p.check(normal(password), against)
		if ok = err == nil && matches && hash != ""; ok && *params != *hashing {
			better, err = argon2id.CreateHash(normal(password), hashing)
		}
		return err
	})
	return ok, better, err
}

// inTurn runs the work when it is its turn. No connection is to be held meanwhile.
func (p *passwords) inTurn(ctx context.Context, work func() error) error {
	if p.waiting.Add(1) > int64(maxHashQueue*cap(p.turns)) {
		p.waiting.Add(-1)
		return crowded()
	}
	timer := time.NewTimer(hashWait)
	defer timer.Stop()
	select {
	case p.turns <- struct{}{}:
		p.waiting.Add(-1)
	case <-timer.C:
		p.waiting.Add(-1)
		return crowded()
	case <-ctx.Done():
		p.waiting.Add(-1)
		return ctx.Err()
	}
	defer func() { <-p.turns }()
	if err := work(); err != nil {
		return fmt.Errorf("hash a password: %w", err)
	}
	return nil
}

func crowded() *problem { return unavailable("too many people are signing up or logging in") }
