package main_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

var slowClients = flag.Int("slow", 300, "how many slow clients TestSlowClientsStopNobody has at the same time")

// slowByHand is from how many on the test has time: the service has all the files that it may open, and idle connections are waited for, too.
const slowByHand = 5000

// slowSwarm is a process full of slow clients.
type slowSwarm struct {
	t       *testing.T
	stdin   io.WriteCloser
	reports chan slowReport
	ended   chan error
}

// slowReport is what it says of them, once and again.
type slowReport struct {
	// Open are connections, Opened those that there were, Cut those that the service has closed, and Refused those that could not be opened.
	Open, Opened, Cut, Refused int64
}

func startSlowSwarm(t *testing.T, addr string, n int) *slowSwarm {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	s := &slowSwarm{t: t, reports: make(chan slowReport, 1000), ended: make(chan error, 1)}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), slowEnv+"="+addr+" "+strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	s.stdin, err = cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	go func() {
		defer close(s.reports)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var r slowReport
			if json.Unmarshal(lines.Bytes(), &r) == nil {
				s.reports <- r
			}
		}
		s.ended <- cmd.Wait()
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return s
}

// until waits for a report.
func (s *slowSwarm) until(what string, within time.Duration, ok func(slowReport) bool) slowReport {
	s.t.Helper()
	deadline := time.After(within)
	var last slowReport
	for {
		select {
		case r, more := <-s.reports:
			if !more {
				s.t.Fatalf("the slow clients ended before %s: %+v", what, last)
			}
			if last = r; ok(r) {
				return r
			}
		case <-deadline:
			s.t.Fatalf("never: %s; %+v", what, last)
		}
	}
}

// gauge is a number of a scrape.
func (p *process) gauge(name string) float64 {
	p.t.Helper()
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(p.scrape())
	require.Len(p.t, found, 2, name)
	v, err := strconv.ParseFloat(found[1], 64)
	require.NoError(p.t, err)
	return v
}

// Clients that send a header or a body byte by byte, that read no answer or leave a connection idle, and come again when they are cut
// off, do not keep anybody from signing up; in the end each has been cut off, and the process is as it was.
// For ten thousand: go test ./cmd/outbox -run '^TestSlowClientsStopNobody$' -slow 10000 -timeout 20m
func TestSlowClientsStopNobody(t *testing.T) {
	t.Parallel()
	byHand := *slowClients >= slowByHand
	env := []string{"DATABASE_URL=" + testdb.New(t), "SMTP_URL=smtp://127.0.0.1:1", "OUTBOX_PAYMENTS=sandbox", "OUTBOX_ADMIN_TOKENS=", "OUTBOX_RATE_LIMITS=off"}
	path, err := binary()
	require.NoError(t, err)
	if !byHand {
		path = fewFiles(t, path, 256) // fewer than there are clients
	}
	p := startServeOf(t, path, "api", env)
	signUp := func(i int) {
		t.Helper()
		a, err := call(t.Context(), "POST", p.api+"/v1/signup", map[string]any{
			"email": fmt.Sprintf("u%d@example.com", i), "password": "correct horse battery", "name": "A customer",
		}, "Connection", "close")
		require.NoError(t, err, p.tail())
		require.Equal(t, 201, a.status, a.raw)
	}
	signUp(0)
	before := p.gauge("go_goroutines")

	swarm := startSlowSwarm(t, strings.TrimPrefix(p.api, "http://"), *slowClients)
	there := swarm.until("all of them have come", 5*time.Minute, func(r slowReport) bool { return r.Opened >= int64(*slowClients) })
	signups := 5
	if byHand {
		signups = 50
	}
	for i := range signups {
		signUp(i + 1)
	}
	open, dropped := p.gauge(`outbox_http_connections{listener="api"}`), p.gauge(`outbox_http_dropped_connections_total{listener="api"}`)
	t.Logf("%d signups beside %+v; the service had %.0f connections, and had dropped %.0f; %.0f goroutines, %.0f MiB", signups, there, open, dropped,
		p.gauge("go_goroutines"), p.gauge("process_resident_memory_bytes")/(1<<20))
	if byHand {
		require.GreaterOrEqual(t, open, 0.9*float64(*slowClients))
	} else {
		require.Positive(t, dropped, "there is not room for all")
	}
	require.NotContains(t, p.tail(), "too many open files")

	require.NoError(t, swarm.stdin.Close()) // they do not come again
	left := 0.25                            // the idle ones, which the service keeps for longer than a test has
	if byHand {
		left = 0
	}
	last := swarm.until("they have been cut off", 3*time.Minute, func(r slowReport) bool { return float64(r.Open) <= left*float64(*slowClients) })
	t.Logf("%+v", last)
	if byHand {
		require.NoError(t, <-swarm.ended)
		require.Equal(t, last.Opened, last.Cut)
		p.until("the process is as it was", func() bool { return p.gauge("go_goroutines") < before+50 })
		t.Logf("afterwards %.0f goroutines (%.0f before), %.0f MiB", p.gauge("go_goroutines"), before, p.gauge("process_resident_memory_bytes")/(1<<20))
	}
	signUp(1000)
}

// fewFiles is a program that runs the one at path with so many open files at most.
func fewFiles(t *testing.T, path string, files int) string {
	t.Helper()
	script := dataDir(t) + "/few-files"
	require.NoError(t, os.WriteFile(script, []byte(fmt.Sprintf("#!/bin/sh\nulimit -n %d && exec '%s' \"$@\"\n", files, path)), 0o700))
	return script
}
