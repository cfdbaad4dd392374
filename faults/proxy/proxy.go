package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Protocol is what a proxy understands of the bytes that pass.
type Protocol int

// The protocols.
const (
	// TCP is any protocol: bytes are bytes.
	TCP Protocol = iota
	// PostgreSQL is its protocol 3, without TLS: a client that asks for TLS is told, as by a server without it, that there is none.
	PostgreSQL
)

const (
	dialTimeout = 5 * time.Second
	acceptPause = 10 * time.Millisecond
)

// Options say what a proxy stands in front of.
type Options struct {
	// Target is the address that connections go to, like 127.0.0.1:5432.
	Target string
	// Protocol is what the proxy understands.
	Protocol Protocol
	// Seed is where the proxy's coins come from. Each connection has coins of its own, by its number.
	Seed uint64
}

// Proxy is a running proxy. Its methods are safe for concurrent use.
type Proxy struct {
	protocol Protocol
	seed     uint64
	addr     string
	guard    *guard

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	counts counters

	mu       sync.Mutex
	target   string
	listener net.Listener // nil while connections are refused
	links    map[*link]struct{}
	accepted uint64
	closed   bool
	modes    modes
	changed  chan struct{} // closed and replaced whenever the modes change
}

// Start opens a proxy on a free port of 127.0.0.1. It runs until Close.
func Start(o Options) (*Proxy, error) {
	guard, addr, err := reserve()
	if err != nil {
		return nil, fmt.Errorf("proxy: reserve a port: %w", err)
	}
	p := &Proxy{
		protocol: o.Protocol, seed: o.Seed, addr: addr, guard: guard, target: o.Target,
		links: map[*link]struct{}{}, changed: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.listen(); err != nil {
		p.cancel()
		return nil, errors.Join(err, guard.release())
	}
	p.addr = p.listener.Addr().String()
	return p, nil
}

// Addr is the address to connect to. It stays the same for the life of the proxy.
func (p *Proxy) Addr() string { return p.addr }

// SetTarget sends the connections that are opened from now on elsewhere. Those that are open stay where they are.
func (p *Proxy) SetTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Refuse closes the proxy's port, or opens it again: on, a client gets ECONNREFUSED. Open connections go on.
func (p *Proxy) Refuse(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return fmt.Errorf("proxy: refuse: %w", net.ErrClosed)
	case on && p.listener != nil:
		err := p.listener.Close()
		p.listener = nil
		return err
	case !on && p.listener == nil:
		return p.listen()
	default:
		return nil
	}
}

// CutAll resets every open connection, towards both sides, and returns how many there were.
func (p *Proxy) CutAll() int { return p.cutIf(func(*link) bool { return true }) }

// CutListeners resets the connections that have sent LISTEN, and returns how many there were.
func (p *Proxy) CutListeners() int {
	p.needsPostgreSQL("CutListeners")
	return p.cutIf(func(l *link) bool { return l.listens.Load() })
}

func (p *Proxy) cutIf(chosen func(*link) bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cutLocked(chosen)
}

func (p *Proxy) cutLocked(chosen func(*link) bool) int {
	n := 0
	for l := range p.links {
		if chosen(l) && l.cut() {
			n++
		}
	}
	return n
}

// Close resets what is open and returns when all that the proxy has started has ended.
func (p *Proxy) Close() error {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	var err error
	if p.listener != nil {
		err = p.listener.Close()
		p.listener = nil
	}
	p.cancel()
	for l := range p.links {
		l.abort()
	}
	p.mu.Unlock()
	p.tasks.Wait()
	if first {
		err = errors.Join(err, p.guard.release())
	}
	return err
}

// listen opens the port. The caller holds p.mu, or has the proxy to itself.
func (p *Proxy) listen() error {
	listener, err := net.Listen("tcp4", p.addr)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	p.listener = listener
	p.tasks.Go(func() { p.accept(listener) })
	return nil
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			p.open(conn.(*net.TCPConn))
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of file descriptors, say: that passes
			select {
			case <-p.ctx.Done():
				return
			case <-time.After(acceptPause):
			}
		}
	}
}

func (p *Proxy) open(client *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.listener == nil {
		reset(client)
		return
	}
	p.accepted++
	l := newLink(p, client, p.accepted)
	p.links[l] = struct{}{}
	p.tasks.Go(l.run)
}

func (p *Proxy) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *Proxy) currentTarget() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

func (p *Proxy) needsPostgreSQL(mode string) {
	if p.protocol != PostgreSQL {
		panic("proxy: " + mode + " needs a proxy for PostgreSQL") // it would do nothing, and a test would see nothing
	}
}

// Stats is what has happened so far.
type Stats struct {
	Open          int   // connections that are open now
	Accepted      int64 // connections that were opened
	Unreachable   int64 // of these, the ones whose target could not be reached
	Cut           int64 // connections that the proxy has reset, by any mode
	CutInside     int64 // of these, in the middle of what the client sent
	Commits       int64 // of these, in place of the answer to a COMMIT
	Answers       int64 // of these, in place of any answer
	Notifications int64 // notifications that were dropped
	Vanished      int64 // bytes that a black hole has swallowed
	Unreadable    int64 // connections that were reset because they do not speak the protocol
}

type counters struct {
	unreachable, cut, cutInside, commits, answers, notifications, vanished, unreadable atomic.Int64
}

// Stats tells what has happened so far.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.counts
	return Stats{
		Open: len(p.links), Accepted: int64(p.accepted), Unreachable: c.unreachable.Load(),
		Cut: c.cut.Load(), CutInside: c.cutInside.Load(), Commits: c.commits.Load(), Answers: c.answers.Load(),
		Notifications: c.notifications.Load(), Vanished: c.vanished.Load(), Unreadable: c.unreadable.Load(),
	}
}
