package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	mostClients = 1000
	// longestLoad bounds a load: it ends by itself, whoever forgot it.
	longestLoad = time.Hour
	// loadWait is for how long a customer waits for an effect, which Prefer: wait allows at most, and loadAnswer for an answer beyond that.
	loadWait   = 30 * time.Second
	loadAnswer = 15 * time.Second
)

// loadCommand is outbox load.
type loadCommand struct {
	URL     string        `arg:"" optional:"" default:"http://127.0.0.1:8080" help:"The API of the service. Default: ${default}."`
	Clients int           `default:"4" help:"How many customers shop at the same time. Default: ${default}."`
	For     time.Duration `default:"30s" help:"For how long. Default: ${default}."`
	Force   bool          `help:"Also where the service is not outbox dev: there, customers get mail, and what they buy is charged and taken from the stock."`
	output
}

// loaded is what a load has measured.
type loaded struct {
	URL     string        `json:"url"`
	Clients int           `json:"clients"`
	Seconds float64       `json:"seconds"`
	Writes  loadFigures   `json:"writes"`   // requests that write, from the first byte sent to the last one read
	ToTrial loadFigures   `json:"to_trial"` // from the answer to a signup, which follows its commit, to the trial's being there
	ToPaid  loadFigures   `json:"to_paid"`  // the same of a checkout, to the order's being paid
	Refused int           `json:"refused"`  // answers that said to come again later
	Failed  []loadFailure `json:"failed"`
}

type loadFigures struct {
	Count     int     `json:"count"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

type loadFailure struct {
	What  string `json:"what"`
	Count int    `json:"count"`
}

// Run has customers sign up and shop until the time is up. Each waits for the effect of what it did before it goes on, so that the service
// decides how fast they are.
func (c loadCommand) Run(ctx context.Context) error {
	switch {
	case c.Clients < 1 || c.Clients > mostClients:
		return usage("--clients must be 1 to %d, and is %d", mostClients, c.Clients)
	case c.For < time.Second || c.For > longestLoad:
		return usage("--for must be 1s to %s, and is %s", longestLoad, c.For)
	}
	l := &load{
		url: strings.TrimSuffix(c.URL, "/"), run: uuid.NewString()[:8], failed: map[string]int{},
		http: &http.Client{Timeout: loadWait + loadAnswer, Transport: &http.Transport{MaxIdleConnsPerHost: c.Clients, MaxConnsPerHost: c.Clients}},
	}
	defer l.http.CloseIdleConnections()
	if err := l.prepare(ctx, c.Force); err != nil {
		return err
	}
	result, err := l.drive(ctx, c.Clients, c.For, c.bar())
	if err != nil {
		return err
	}
	if err := c.print(result, func(p *printer) { printLoad(p, result) }); err != nil {
		return err
	}
	if len(result.Failed) > 0 {
		return fmt.Errorf("some requests failed")
	}
	return nil
}

// drive runs the customers. A load that is interrupted tells what it has measured until then.
func (l *load) drive(ctx context.Context, clients int, lasts time.Duration, b *bar) (*loaded, error) {
	began := time.Now()
	driving, cancel := context.WithTimeout(ctx, lasts)
	defer cancel()
	var customers sync.WaitGroup
	for n := range clients {
		customers.Go(func() { l.customer(driving, n) })
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		customers.Wait()
	}()
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-tick.C:
		}
		b.draw(int64(min(time.Since(began), lasts).Seconds()), int64(lasts.Seconds()), fmt.Sprintf("s, %d writes", l.writes()))
	}
	b.end()
	return l.result(clients, time.Since(began)), nil
}

func printLoad(p *printer, l *loaded) {
	t := table("", "COUNT", "A SECOND", "P50", "P99")
	for _, row := range []struct {
		name string
		of   loadFigures
	}{{"write", l.Writes}, {"signup to trial", l.ToTrial}, {"checkout to paid", l.ToPaid}} {
		if row.of.Count == 0 {
			t.row(row.name, 0, "-", "-", "-")
			continue
		}
		t.row(row.name, row.of.Count, fmt.Sprintf("%.1f", row.of.PerSecond), fmt.Sprintf("%.1f ms", row.of.P50), fmt.Sprintf("%.1f ms", row.of.P99))
	}
	p.table(t)
	if l.Refused > 0 {
		p.line("%d requests were told to come again later, and did", l.Refused)
	}
	for _, f := range l.Failed {
		p.line("%d times: %s", f.Count, f.What)
	}
}
