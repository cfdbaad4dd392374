package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

const backlogConsumers = 3

// sample says how many deliveries were done at a time.
type sample struct {
	at   time.Duration
	done float64
}

// backlog has a service with three consumers work off what a long outage has left. The service is a process of its own, so
// that its memory is measured and not that of the bench.
func backlog(ctx context.Context, e *env) ([]float64, error) {
	m := newMaker(10_000)
	for written := 0; written < e.size.backlogEvents; {
		// In parts: the bench need not hold a million events in memory either.
		events, err := m.make(min(100_000, e.size.backlogEvents-written))
		if err != nil {
			return nil, err
		}
		if err := fillOutbox(ctx, e.pool, events); err != nil {
			return nil, err
		}
		written += len(events)
	}
	if err := settle(ctx, e.pool); err != nil {
		return nil, err
	}
	s, err := startService(ctx, e.url)
	if err != nil {
		return nil, err
	}
	total := int64(e.size.backlogEvents) * backlogConsumers
	samples, ended, err := s.watch(ctx, e, total)
	if err == nil {
		err = quiet(ctx, e.pool)
	}
	rss, stopped := s.stop()
	if err := errors.Join(err, stopped); err != nil {
		return nil, err
	}
	if err := (ours{consumers: backlogConsumers}).expects(int64(e.size.backlogEvents)).check(ctx, e.pool); err != nil {
		return nil, err
	}
	rate := float64(total) / ended.Seconds()
	return []float64{rss, endOverStart(samples, float64(total)), rate}, nil
}

// endOverStart is the rate over the last fifth against that over the second: the first has the start-up in it.
func endOverStart(samples []sample, total float64) float64 {
	second := when(samples, total*2/5) - when(samples, total/5)
	last := when(samples, total) - when(samples, total*4/5)
	return second.Seconds() / last.Seconds()
}

// when so many were done, between two samples.
func when(samples []sample, done float64) time.Duration {
	var before sample
	for _, s := range samples {
		if s.done >= done {
			share := (done - before.done) / (s.done - before.done)
			return before.at + time.Duration(share*float64(s.at-before.at))
		}
		before = s
	}
	return before.at
}

// service is the process.
type service struct {
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner
	begun time.Time
}

func startService(ctx context.Context, databaseURL string) (*service, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// It ends when its input does, so also when this process is killed; ctx is for when it does not.
	cmd := exec.CommandContext(ctx, program, "service")
	cmd.Env = append(os.Environ(), serviceURL+"="+databaseURL)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the service: %w", err)
	}
	return &service{cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout), begun: time.Now()}, nil
}

// Load makes service a counter: it reads what the process says that it has done.
func (s *service) next() (int64, error) {
	if !s.lines.Scan() {
		return 0, errors.Join(errors.New("the service ended by itself"), s.lines.Err())
	}
	return strconv.ParseInt(s.lines.Text(), 10, 64)
}

// fixed is a counter that has nothing to wait for.
type fixed int64

func (f fixed) Load() int64 { return int64(f) }

// watch collects samples until all effects are committed, and says how long that took.
func (s *service) watch(ctx context.Context, e *env, total int64) ([]sample, time.Duration, error) {
	var samples []sample
	for done := int64(0); done < total; {
		var err error
		if done, err = s.next(); err != nil {
			return nil, 0, errors.Join(err, ctx.Err())
		}
		samples = append(samples, sample{time.Since(s.begun), float64(done)})
	}
	ended, err := awaitEffects(ctx, e.pool, fixed(total), total)
	if err != nil {
		return nil, 0, err
	}
	took := ended.Sub(s.begun)
	samples[len(samples)-1] = sample{took, float64(total)}
	return samples, took, nil
}

// stop ends the process and returns its peak memory in MiB.
func (s *service) stop() (float64, error) {
	err := s.stdin.Close()
	peak := ""
	for s.lines.Scan() {
		if text, found := strings.CutPrefix(s.lines.Text(), peakPrefix); found {
			peak = text
		}
	}
	if err := errors.Join(err, s.lines.Err(), s.cmd.Wait()); err != nil {
		return 0, fmt.Errorf("the service: %w", err)
	}
	return strconv.ParseFloat(peak, 64)
}
