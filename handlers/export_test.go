package handlers

import (
	"github.com/alexedwards/argon2id"
	"github.com/labstack/echo/v4"
)

// ours are the parameters that the service hashes with.
var ours = *hashing

// CheapHash is how hashes begin after HashCheaply.
const CheapHash = "$argon2id$v=19$m=64,t=1,p=1$"

// HashCheaply is for this package's tests, before they run: with the race detector a hash takes most of a second, and there are thousands.
func HashCheaply() {
	hashing = &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: ours.SaltLength, KeyLength: ours.KeyLength}
}

// Turns are those to hash: who puts something in has one, and who takes it out gives it back. Waiting is how many wait for one.
type Turns struct {
	Taken   chan struct{}
	Waiting func() int64
}

// NewAPIAndTurns is NewAPI for tests that keep others from hashing.
func NewAPIAndTurns(cfg Config) (*echo.Echo, Turns) {
	a, e := newAPI(cfg)
	return e, Turns{a.passwords.turns, a.passwords.waiting.Load}
}
