package outside

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	headerTimeout = 10 * time.Second
	maxBody       = 1 << 20
)

// Faults are the chances that a request comes to harm. It comes to one of them at most, so their sum is at most 1.
type Faults struct {
	Refuse      float64 // answered with 500; nothing is done
	Busy        float64 // answered with 429; nothing is done
	LoseRequest float64 // the connection is closed; nothing is done
	LoseAnswer  float64 // it is done, and the connection is closed
	HangBefore  float64 // nothing is done and nothing answered, until the client gives up
	HangAfter   float64 // it is done and nothing answered, until the client gives up
}

// Injected tells how many requests have come to which harm.
type Injected struct {
	Requests                                                        int // all, with those that came to none
	Refused, Busy, LostRequests, LostAnswers, HungBefore, HungAfter int
}

// Harmed is how many have come to any.
func (i Injected) Harmed() int {
	return i.Refused + i.Busy + i.LostRequests + i.LostAnswers + i.HungBefore + i.HungAfter
}

// Server is what the judges share: an HTTP server on 127.0.0.1 with faults in front of its work. Its methods are safe for concurrent use.
type Server struct {
	url     string
	handler http.Handler
	http    *http.Server
	served  chan struct{} // closed when http has ended

	mu       sync.Mutex
	coin     *rand.Rand
	faults   Faults
	injected Injected
	closed   bool
	requests sync.WaitGroup // grows under mu, and not once closed
}

// start serves the handler's work on a free port, until stop.
func start(handler http.Handler, seed uint64) (*Server, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{
		url: "http://" + listener.Addr().String(), handler: handler, served: make(chan struct{}),
		coin: rand.New(rand.NewPCG(seed, 0)),
	}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: headerTimeout}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(listener) // returns when the server is closed
	}()
	return s, nil
}

// URL is where the server is.
func (s *Server) URL() string { return s.url }

// SetFaults replaces the chances. Requests that hang go on hanging.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// Injected tells what has come to harm so far.
func (s *Server) Injected() Injected {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.injected
}

// stop closes all connections and returns when no request is being worked on.
func (s *Server) stop() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.http.Close()
	<-s.served
	s.requests.Wait()
	return err
}

// serve does the work between the harm that may come before it and the one that may come after it.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		panic(http.ErrAbortHandler)
	}
	defer s.requests.Done()
	// Before any harm: a request that did not arrive is not lost here, and whether a client has gone is noticed only then.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))

	after := s.draw()
	switch after {
	case refuse, busy:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(map[harm]int{refuse: http.StatusInternalServerError, busy: http.StatusTooManyRequests}[after])
		_, _ = io.WriteString(w, `{"error":{"type":"api_error"}}`)
		return
	case loseRequest:
		panic(http.ErrAbortHandler)
	case hangBefore:
		hang(r)
	}
	a := &answer{header: http.Header{}, status: http.StatusOK}
	s.handler.ServeHTTP(a, r)
	switch after {
	case loseAnswer:
		panic(http.ErrAbortHandler)
	case hangAfter:
		hang(r)
	}
	a.send(w)
}

func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.requests.Add(1)
	return true
}

// hang waits for the connection's end: the client goes, or the server is closed.
func hang(r *http.Request) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

type harm int

const (
	none harm = iota
	refuse
	busy
	loseRequest
	loseAnswer
	hangBefore
	hangAfter
)

// draw throws the coin for one request.
func (s *Server) draw() harm {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, n := s.faults, &s.injected
	n.Requests++
	chance := s.coin.Float64()
	for _, c := range []struct {
		harm    harm
		chance  float64
		counter *int
	}{
		{refuse, f.Refuse, &n.Refused},
		{busy, f.Busy, &n.Busy},
		{loseRequest, f.LoseRequest, &n.LostRequests},
		{loseAnswer, f.LoseAnswer, &n.LostAnswers},
		{hangBefore, f.HangBefore, &n.HungBefore},
		{hangAfter, f.HangAfter, &n.HungAfter},
	} {
		if chance < c.chance {
			*c.counter++
			return c.harm
		}
		chance -= c.chance
	}
	return none
}

// answer is one that is not sent yet.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

func (a *answer) send(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes())
}
