package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
)

// startPause is how long after the end of one process the next is started; it doubles while none comes to serve.
const startPause = 100 * time.Millisecond

// slot is a place for a process of the service, which somebody like systemd keeps running: one that dies is started again.
type slot struct {
	name   string
	binary string
	logs   string // what all processes of this slot have said

	mu      sync.Mutex
	env     map[string]string
	cmd     *exec.Cmd
	api     string // its addresses, once it serves
	admin   string
	points  string        // where its failpoints listen
	died    chan struct{} // closed when the present process has ended
	wanted  bool
	onServe func(api string)

	quit chan struct{}
	done chan struct{}
}

func newSlot(name, binary, dir string, env map[string]string, onServe func(api string)) *slot {
	s := &slot{
		name: name, binary: binary, logs: filepath.Join(dir, name+".log"),
		env: env, wanted: true, onServe: onServe, quit: make(chan struct{}), done: make(chan struct{}),
	}
	go s.supervise()
	return s
}

// supervise runs processes one after the other. Its thread forks them: they are killed when it ends, and with it when this
// process does.
func (s *slot) supervise() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.done)
	for pause := startPause; ; {
		pause = min(2*pause, time.Second)
		if s.mayRun() && s.runOnce() {
			pause = startPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-s.quit:
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func (s *slot) mayRun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

// runOnce runs a process until it ends, and reports whether it came to serve: one that did is started again at once.
func (s *slot) runOnce() (served bool) {
	log, err := os.OpenFile(s.logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return false
	}
	defer func() { _ = log.Close() }()
	from, _ := log.Seek(0, 2)
	cmd := exec.Command(s.binary, "serve")
	cmd.Stderr, cmd.Stdout = log, log
	// A group of its own: when the shell ends in which the harness runs in the background, the kernel lets what stands still in its group go on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	s.mu.Lock()
	cmd.Env = os.Environ()
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Env = append(cmd.Env, failpoint.EnvAddr+"=127.0.0.1:0")
	if err := cmd.Start(); err != nil {
		s.mu.Unlock()
		return false
	}
	died := make(chan struct{})
	s.cmd, s.died, s.api, s.admin, s.points = cmd, died, "", "", ""
	s.mu.Unlock()

	awaited := make(chan bool, 1)
	go func() { awaited <- s.awaitServing(from, died) }()
	_ = cmd.Wait()
	s.gone() // before anybody is told, who would take its addresses for those of the next
	close(died)
	served = <-awaited
	s.gone()
	return served
}

// gone forgets the process.
func (s *slot) gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd, s.api, s.admin, s.points = nil, "", "", ""
}

// awaitServing reads from the log where the process listens, and reports whether it does before it dies.
func (s *slot) awaitServing(from int64, died <-chan struct{}) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-died:
			return false
		case <-tick.C:
		}
		read := tailOf(s.logs, from)
		read = read[:strings.LastIndexByte(read, '\n')+1]
		from += int64(len(read))
		for line := range strings.Lines(read) {
			var said struct{ Msg, API, Admin, Addr string }
			if json.Unmarshal([]byte(line), &said) != nil {
				continue
			}
			s.mu.Lock()
			switch {
			case said.Addr != "" && strings.HasPrefix(said.Msg, "failpoints"):
				s.points = said.Addr
			case said.Msg == "serving":
				s.api, s.admin = said.API, said.Admin
				s.mu.Unlock()
				s.onServe(said.API)
				return true
			}
			s.mu.Unlock()
		}
	}
}

func (s *slot) logSize() int64 {
	info, err := os.Stat(s.logs)
	if err != nil {
		return 0
	}
	return info.Size()
}

func tailOf(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	read, _ := io.ReadAll(io.NewSectionReader(f, from, 1<<20))
	return string(read)
}

// signal sends a signal to the process that runs, if one does, and returns the channel that is closed by its end.
func (s *slot) signal(sig syscall.Signal) (died <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	_ = s.cmd.Process.Signal(sig)
	return s.died
}

func (s *slot) kill() { <-s.signal(syscall.SIGKILL) }

// present returns the channel that is closed when the process that runs now has ended.
func (s *slot) present() (died <-chan struct{}, running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.died, s.cmd != nil
}

func (s *slot) addresses() (api, admin string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.api, s.admin
}

// restart ends the process in an orderly way and starts the next with the changed environment.
func (s *slot) restart(ctx context.Context, env map[string]string) error {
	s.mu.Lock()
	for name, value := range env {
		s.env[name] = value
	}
	s.mu.Unlock()
	select {
	case <-s.signal(syscall.SIGTERM):
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", s.name, ctx.Err())
	case <-time.After(45 * time.Second):
		s.kill()
		return fmt.Errorf("%s did not stop within 45 s", s.name)
	}
	return s.awaitServe(ctx)
}

// awaitServe returns when the process serves.
func (s *slot) awaitServe(ctx context.Context) error {
	return until(ctx, 30*time.Second, s.name+" serves", func() bool {
		api, _ := s.addresses()
		return api != ""
	})
}

// rest ends the process and starts no other until wake.
func (s *slot) rest() {
	s.mu.Lock()
	s.wanted = false
	s.mu.Unlock()
	s.kill()
}

func (s *slot) wake() {
	s.mu.Lock()
	s.wanted = true
	s.mu.Unlock()
}

// close ends the slot: in an orderly way, and within a bound.
func (s *slot) close() {
	close(s.quit)
	s.signal(syscall.SIGCONT)
	died := s.signal(syscall.SIGTERM)
	select {
	case <-died:
	case <-time.After(closeTime):
		s.kill() // a handler that never returns has it wait for its own bounds
	}
	<-s.done
}

// failpoints is a client of the process's failpoints. One that is stopped keeps nobody waiting for long.
var failpoints = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (s *slot) pointsURL(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + cmp.Or(s.points, "127.0.0.1:1") + path
}

// arm lets the process kill or stop itself at the nth passage of any of the points from now.
func (s *slot) arm(ctx context.Context, nth int, do string, points ...failpoint.Point) error {
	return s.put(ctx, "/arm?"+url.Values{"point": names(points), "nth": {strconv.Itoa(nth)}, "do": {do}}.Encode())
}

// disarm takes orders back: those of the points, or all.
func (s *slot) disarm(ctx context.Context, points ...failpoint.Point) error {
	return s.put(ctx, "/disarm?"+url.Values{"point": names(points)}.Encode())
}

func names(points []failpoint.Point) []string {
	out := make([]string, len(points))
	for i, p := range points {
		out[i] = string(p)
	}
	return out
}

func (s *slot) put(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.pointsURL(path), nil)
	if err != nil {
		return err
	}
	res, err := failpoints.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s: PUT %s: %s", s.name, path, res.Status)
	}
	return nil
}

// vitals is what a process says of itself.
type vitals struct {
	Goroutines int            `json:"goroutines"`
	Passages   map[string]int `json:"passages"`
}

func (s *slot) vitals(ctx context.Context) (v vitals, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.pointsURL("/state"), nil)
	if err != nil {
		return v, err
	}
	res, err := failpoints.Do(req)
	if err != nil {
		return v, fmt.Errorf("%s: %w", s.name, err)
	}
	defer res.Body.Close()
	err = json.NewDecoder(res.Body).Decode(&v)
	return v, err
}

// standsStill reports whether the process is stopped.
func (s *slot) standsStill() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return false
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	return strings.HasPrefix(after, "T")
}

// memory is the resident memory of the process, in bytes; 0 where none runs.
func (s *slot) memory() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// closeTime is how long a process has at the end of a stage; that it stops in order is seen in a deploy.
const closeTime = 5 * time.Second

var errLate = errors.New("not in time")

// until waits for a condition, for a bounded time.
func until(ctx context.Context, bound time.Duration, what string, ok func() bool) error {
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-deadline.C:
			return fmt.Errorf("%s: %w (%s)", what, errLate, bound)
		case <-tick.C:
		}
	}
	return nil
}
