//go:build faults

package failpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Serve listens on the address in EnvAddr, if that is set, until stop is called:
//
//	PUT /arm?point=NAME&nth=N&do=kill|stop   the N-th passage from now (1: the next) kills the process, or stops it, and disarms;
//	                                         point may stand there several times
//	PUT /disarm?point=NAME                   takes the point's order back, and without a point every order
//	GET /state                               {"goroutines":N,"passages":{"relay.claim.before":12,…},"armed":["…"]}
//
// A point has one order at a time; the last one counts. Signals are SIGKILL and SIGSTOP, of the process to itself.
func Serve(log *slog.Logger) (stop func(), err error) {
	addr := os.Getenv(EnvAddr)
	if addr == "" {
		return func() {}, nil
	}
	socket, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", EnvAddr, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /arm", arm)
	mux.HandleFunc("PUT /disarm", func(_ http.ResponseWriter, r *http.Request) {
		only := r.URL.Query()["point"]
		for p, at := range places {
			if len(only) == 0 || slices.Contains(only, string(p)) {
				at.armed.Store(nil)
			}
		}
	})
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(state()) // who asked has gone
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
			log.Error("failpoints", "error", err)
		}
	}()
	log.Warn("failpoints: this process can be told to die", "addr", socket.Addr().String())
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		<-ended
	}, nil
}

func arm(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	nth, err := strconv.ParseInt(query.Get("nth"), 10, 64)
	signal := map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP}[query.Get("do")]
	known := len(query["point"]) > 0
	for _, p := range query["point"] {
		known = known && places[Point(p)] != nil
	}
	if !known || err != nil || nth < 1 || signal == 0 {
		http.Error(w, "point must be one of GET /state, nth 1 or more, and do kill or stop", http.StatusBadRequest)
		return
	}
	for _, p := range query["point"] {
		o := &order{signal: signal}
		o.left.Store(nth)
		places[Point(p)].armed.Store(o)
	}
}

type processState struct {
	Goroutines int             `json:"goroutines"`
	Passages   map[Point]int64 `json:"passages"`
	Armed      []Point         `json:"armed"`
}

func state() processState {
	s := processState{Goroutines: runtime.NumGoroutine(), Passages: make(map[Point]int64, len(all)), Armed: []Point{}}
	for _, p := range all {
		at := places[p]
		if s.Passages[p] = at.passages.Load(); at.armed.Load() != nil {
			s.Armed = append(s.Armed, p)
		}
	}
	return s
}
