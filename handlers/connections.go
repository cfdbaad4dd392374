package handlers

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// Connections are those that a server has open, of which there is a most. Safe for concurrent use.
type Connections struct {
	most int

	mu sync.Mutex
	// open has each connection, with its place among those that are waited for; nil: there is a request of it to answer.
	open map[net.Conn]*list.Element
	// waiting are those that the server waits for, for the header or the body of a request, the longest first.
	waiting *list.List
	dropped int64
}

type connectionKey struct{}

// connection is one of Connections in the context of its requests.
type connection struct {
	of   *Connections
	conn net.Conn
}

// LimitConnections lets the server have so many connections open at most. It is to be called before the server serves.
//
// One more costs the one that the server has waited for the longest: for a request's header, the rest of a body, or, idle, for what comes
// next. So clients that are slow, however many, push out each other and nobody else: whoever sends a request at once is taken, and a
// request that is being answered is never cut off by this. Where none is waited for, the new connection is closed.
func LimitConnections(s *http.Server, most int) *Connections {
	c := &Connections{most: most, open: map[net.Conn]*list.Element{}, waiting: list.New()}
	s.ConnState = func(conn net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			c.admit(conn)
		case http.StateActive:
			c.work(conn)
		case http.StateIdle:
			c.wait(conn)
		case http.StateHijacked, http.StateClosed:
			c.forget(conn)
		}
	}
	s.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, connection{c, conn})
	}
	return c
}

// Open is how many connections there are.
func (c *Connections) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// Waiting is how many of them the server waits for.
func (c *Connections) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting.Len()
}

// Dropped is how many were closed to make room.
func (c *Connections) Dropped() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

func (c *Connections) admit(conn net.Conn) {
	c.mu.Lock()
	var closing net.Conn
	if len(c.open) >= c.most {
		closing = conn
		if longest := c.waiting.Front(); longest != nil {
			closing, _ = longest.Value.(net.Conn)
		}
		c.remove(closing)
		c.dropped++
	}
	if closing != conn {
		c.open[conn] = c.waiting.PushBack(conn)
	}
	c.mu.Unlock()
	if closing != nil {
		_ = closing.Close() // what reads from it ends by that
	}
}

func (c *Connections) work(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.open[conn]; at != nil {
		c.waiting.Remove(at)
		c.open[conn] = nil
	}
}

func (c *Connections) wait(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.open[conn]; ok && at == nil {
		c.open[conn] = c.waiting.PushBack(conn)
	}
}

func (c *Connections) forget(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(conn)
}

func (c *Connections) remove(conn net.Conn) {
	if at := c.open[conn]; at != nil {
		c.waiting.Remove(at)
	}
	delete(c.open, conn)
}

// awaitBody says that the request is waited for until what it returns is called.
func awaitBody(ctx context.Context) (done func()) {
	c, ok := ctx.Value(connectionKey{}).(connection)
	if !ok {
		return func() {}
	}
	c.of.wait(c.conn)
	return func() { c.of.work(c.conn) }
}
