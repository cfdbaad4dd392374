package proxy

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// pieceSize is how much is read at once.
const pieceSize = 64 << 10

// link is one client's connection and the one to the target that belongs to it.
type link struct {
	proxy  *Proxy
	number uint64

	ctx    context.Context // ends when the link is reset
	cancel context.CancelFunc

	asked   atomic.Bool // the client has sent something since the last answer began
	listens atomic.Bool // the client has sent LISTEN
	lost    bool        // bytes of it have vanished; under proxy.mu

	mu     sync.Mutex
	client *net.TCPConn
	server *net.TCPConn // nil until it is there
	ended  bool
}

func newLink(p *Proxy, client *net.TCPConn, number uint64) *link {
	l := &link{proxy: p, number: number, client: client}
	l.ctx, l.cancel = context.WithCancel(p.ctx)
	return l
}

// run carries the link from its client's connect to the end of both directions.
func (l *link) run() {
	defer l.proxy.forget(l)
	server, err := l.dial()
	if err != nil {
		l.abort(&l.proxy.counts.unreachable)
		return
	}
	if !l.attach(server) {
		return
	}
	up := &pump{link: l, src: l.client, dst: server, fromClient: true, coin: l.coin(0)}
	down := &pump{link: l, src: server, dst: l.client, coin: l.coin(1)}
	if l.proxy.protocol == PostgreSQL {
		up.frames, down.frames = newClientFrames(l), newServerFrames(l, down.coin)
	}
	var both sync.WaitGroup
	both.Go(up.run)
	both.Go(down.run)
	both.Wait()
	l.end(func(conn *net.TCPConn) { _ = conn.Close() }) // what is still to be sent is sent
}

// coin is where the chances of one direction come from: two that share one would disturb each other.
func (l *link) coin(direction uint64) *rand.Rand {
	return rand.New(rand.NewPCG(l.proxy.seed, l.number<<1|direction))
}

func (l *link) dial() (*net.TCPConn, error) {
	if !l.wait(func(m modes) bool { return m.hole }) {
		return nil, l.ctx.Err()
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(l.ctx, "tcp", l.proxy.currentTarget())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

func (l *link) attach(server *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		reset(server)
		return false
	}
	l.server = server
	return true
}

// cut resets the link for the sake of a mode, and reports whether it was still there. It is counted before anybody can see it.
func (l *link) cut(counts ...*atomic.Int64) bool {
	return l.end(reset, append(counts, &l.proxy.counts.cut)...)
}

// abort resets both sides, and reports whether the link was still there.
func (l *link) abort(counts ...*atomic.Int64) bool { return l.end(reset, counts...) }

func (l *link) end(closeConn func(*net.TCPConn), counts ...*atomic.Int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.ended = true
	for _, n := range counts {
		n.Add(1)
	}
	l.cancel()
	closeConn(l.client)
	if l.server != nil {
		closeConn(l.server)
	}
	return true
}

// wait returns when the modes no longer hold the link up; false: it was reset meanwhile.
func (l *link) wait(held func(modes) bool) bool {
	for {
		m, changed := l.proxy.current()
		if !held(m) {
			return l.ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-l.ctx.Done():
			return false
		}
	}
}

// reset closes a connection by RST: what was not sent is dropped, and the other side is not told of an orderly end.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// pump carries the bytes of one direction of a link.
type pump struct {
	link       *link
	src, dst   *net.TCPConn
	fromClient bool
	coin       *rand.Rand
	frames     *frames // nil where bytes are bytes
}

func (p *pump) run() {
	buf := make([]byte, pieceSize)
	held := 0 // bytes of a message that could not be judged yet
	for {
		n, err := p.src.Read(buf[held:])
		if n > 0 {
			var ok bool
			if held, ok = p.forward(buf[:held+n], held); !ok {
				return
			}
		}
		if err != nil {
			p.end(buf[:held], err)
			return
		}
	}
}

// forward sends a piece on, as the modes let it, and moves what has to wait for more bytes to the front. False: the link has ended.
func (p *pump) forward(piece []byte, held int) (kept int, ok bool) {
	m, ok := p.gate()
	if !ok {
		return 0, false
	}
	counts := &p.link.proxy.counts
	if m.hole && p.link.proxy.swallows(p.link) {
		counts.vanished.Add(int64(len(piece) - held))
		return held, true
	}
	if p.fromClient {
		p.link.asked.Store(true)
	} else if p.link.asked.Swap(false) && p.coin.Float64() < m.cutAnswers {
		p.link.cut(&counts.answers)
		return 0, false
	}

	rest := piece[len(piece):]
	if p.frames != nil {
		var v verdict
		var err error
		piece, rest, v, err = p.frames.scan(piece)
		if err != nil {
			p.link.abort(&counts.unreadable)
			return 0, false
		}
		if v == cut {
			_, _ = p.dst.Write(piece) // what came before it belongs to the client
			p.link.cut(&counts.commits)
			return 0, false
		}
	}
	if p.fromClient && len(piece) > 1 && p.coin.Float64() < m.cutInside {
		_, _ = p.dst.Write(piece[:1+p.coin.IntN(len(piece)-1)])
		p.link.cut(&counts.cutInside)
		return 0, false
	}
	if len(piece) > 0 {
		if _, err := p.dst.Write(piece); err != nil {
			p.link.abort()
			return 0, false
		}
	}
	return copy(piece[:cap(piece)], rest), true
}

// gate returns when a piece that was just read may go on, and the modes then; false: the link was reset meanwhile.
func (p *pump) gate() (modes, bool) {
	var timer *time.Timer
	var due <-chan time.Time
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	waited := false
	for {
		m, changed := p.link.proxy.current()
		switch {
		case m.stall:
		case m.latency+m.jitter > 0 && !waited:
			if timer == nil {
				timer = time.NewTimer(m.delay(p.coin))
				due = timer.C
			}
		default:
			return m, p.link.ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-due:
			waited = true
		case <-p.link.ctx.Done():
			return modes{}, false
		}
	}
}

// end tells the other side how this one ended: by FIN, which leaves the other direction open, or by RST.
func (p *pump) end(held []byte, err error) {
	if !p.link.wait(func(m modes) bool { return m.hole || m.stall }) {
		return
	}
	if !errors.Is(err, io.EOF) {
		p.link.abort()
		return
	}
	if _, err := p.dst.Write(held); err != nil || p.dst.CloseWrite() != nil {
		p.link.abort()
	}
}
