package handlers

import "github.com/labstack/echo/v4"

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
