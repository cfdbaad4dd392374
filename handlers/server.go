package handlers

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
)

// Limits of a connection: a slow client is cut off, and one that asks for all the wait there is gets its answer.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = readTimeout + mostWait + 15*time.Second
	idleTimeout       = 90 * time.Second
	maxHeaderBytes    = 16 << 10
)

type stoppingKey struct{}

// NewServer returns a server with every timeout set. When it is shut down, requests that wait for something (Prefer:
// wait) are answered at once with what is there.
func NewServer(handler http.Handler) *http.Server {
	stopping := make(chan struct{})
	var once sync.Once
	s := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), stoppingKey{}, (<-chan struct{})(stopping))
		},
	}
	s.RegisterOnShutdown(func() { once.Do(func() { close(stopping) }) })
	if e, ok := handler.(*echo.Echo); ok {
		s.ErrorLog = e.StdLogger
	}
	return s
}

// stopping is closed when the server of the request is being shut down; nil, which never is, without a NewServer.
func stopping(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(stoppingKey{}).(<-chan struct{})
	return c
}
