package outside_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pgoutbox/pgoutbox/faults/outside"
)

// What was answered is in the file by then, and file and memory tell the same.
func TestLedgerKeepsAll(t *testing.T) {
	t.Parallel()
	ledger, file := startLedger(t)
	var clients sync.WaitGroup
	var bytesThen atomic.Int64
	for c := range 8 {
		clients.Go(func() {
			http := client()
			for n := range 20 {
				note := outside.Note{EventID: fmt.Sprintf("%d-%d", c, n), Key: fmt.Sprint(c), N: int64(n)}
				if status, err := post(t.Context(), http, ledger.URL(), note.EventID, note); status != 200 || err != nil {
					t.Errorf("%d, %v", status, err)
				}
				if info, err := os.Stat(file); err == nil {
					bytesThen.Store(info.Size())
				}
			}
		})
	}
	clients.Wait()
	if bytesThen.Load() == 0 {
		t.Error("it was answered before it was written")
	}
	entries, written := ledger.Entries(), lines[outside.Entry](t, file)
	if len(entries) != 160 || len(written) != 160 {
		t.Fatalf("%d entries, %d lines", len(entries), len(written))
	}
	next := map[string]int64{}
	for i, e := range entries {
		if e != written[i] {
			t.Errorf("entry %d is %+v, and the file has %+v", i, e, written[i])
		}
		if e.N != next[e.Key] {
			t.Errorf("key %s: %d came in place of %d", e.Key, e.N, next[e.Key])
		}
		next[e.Key]++
	}
	if err := ledger.Close(); err != nil {
		t.Error(err)
	}
	if _, err := outside.StartLedger(outside.LedgerConfig{File: file}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that is there: %v", err)
	}
}

func TestLedgerTellsRepeats(t *testing.T) {
	t.Parallel()
	ledger, _ := startLedger(t)
	a := outside.Note{EventID: "a", Key: "k", N: 1}
	changed := a
	changed.N = 2
	for i, tt := range []struct {
		key  string
		body any
		want int
	}{
		{"a", a, 200},
		{"a", a, 200},
		{"a", changed, 422},
		{"b", a, 200},
		{"", a, 400},
		{"c", []int{1}, 400},
		{"c", outside.Note{Key: "k"}, 400},
	} {
		if status, err := post(t.Context(), client(), ledger.URL(), tt.key, tt.body); status != tt.want || err != nil {
			t.Errorf("%d: %d, %v", i, status, err)
		}
	}
	got, want := ledger.Entries(), []outside.Entry{
		{IdempotencyKey: "a", Note: a},
		{IdempotencyKey: "a", Note: a, Repeat: true},
		{IdempotencyKey: "a", Note: changed, Repeat: true, Changed: true},
		{IdempotencyKey: "b", Note: a},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v", got)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		faults   outside.Faults
		status   int
		hangs    bool
		done     bool
		injected outside.Injected
	}{
		"refuse":       {outside.Faults{Refuse: 1}, 500, false, false, outside.Injected{Requests: 1, Refused: 1}},
		"busy":         {outside.Faults{Busy: 1}, 429, false, false, outside.Injected{Requests: 1, Busy: 1}},
		"lose request": {outside.Faults{LoseRequest: 1}, 0, false, false, outside.Injected{Requests: 1, LostRequests: 1}},
		"lose answer":  {outside.Faults{LoseAnswer: 1}, 0, false, true, outside.Injected{Requests: 1, LostAnswers: 1}},
		"hang before":  {outside.Faults{HangBefore: 1}, 0, true, false, outside.Injected{Requests: 1, HungBefore: 1}},
		"hang after":   {outside.Faults{HangAfter: 1}, 0, true, true, outside.Injected{Requests: 1, HungAfter: 1}},
		"none":         {outside.Faults{}, 200, false, true, outside.Injected{Requests: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ledger, file := startLedger(t)
			ledger.SetFaults(tt.faults)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			status, answer := 0, make(chan error, 1)
			go func() {
				var err error
				status, err = post(ctx, client(), ledger.URL(), "a", outside.Note{EventID: "a"})
				answer <- err
			}()
			eventually(t, "the request comes to its harm", func() bool { return ledger.Injected() == tt.injected })
			if tt.hangs {
				eventually(t, "it is done", func() bool { return tt.done == (len(ledger.Entries()) == 1) })
				cancel() // the client gives up
			}
			if err := <-answer; status != tt.status || (err == nil) != (tt.status != 0) || errors.Is(err, context.Canceled) != tt.hangs {
				t.Errorf("%d, %v", status, err)
			}
			if err := ledger.Close(); err != nil { // nothing is under way any more
				t.Error(err)
			}
			want := map[bool]int{true: 1}[tt.done]
			if entries, written := ledger.Entries(), lines[outside.Entry](t, file); len(entries) != want || len(written) != want {
				t.Errorf("%d entries, %d lines", len(entries), len(written))
			}
		})
	}
}

// The chances are shares of the requests, and close ends what hangs.
func TestChances(t *testing.T) {
	t.Parallel()
	ledger, _ := startLedger(t)
	ledger.SetFaults(outside.Faults{Refuse: .25, LoseRequest: .25, LoseAnswer: .25})
	for i := range 100 {
		_, _ = post(t.Context(), client(), ledger.URL(), fmt.Sprint(i), outside.Note{EventID: "a"})
	}
	n := ledger.Injected()
	answered := n.Requests - n.Refused - n.LostRequests - n.LostAnswers
	if n.Requests != 100 || min(n.Refused, n.LostRequests, n.LostAnswers, answered) < 10 {
		t.Errorf("%+v", n)
	}
	if got := len(ledger.Entries()); got != answered+n.LostAnswers {
		t.Errorf("%d entries, %+v", got, n)
	}

	ledger.SetFaults(outside.Faults{HangBefore: 1})
	answer := make(chan error, 1)
	go func() {
		_, err := post(t.Context(), client(), ledger.URL(), "z", outside.Note{EventID: "z"})
		answer <- err
	}()
	eventually(t, "it hangs", func() bool { return ledger.Injected().HungBefore == 1 })
	if err := ledger.Close(); err != nil {
		t.Error(err)
	}
	if err := <-answer; err == nil {
		t.Error("an answer")
	}
	if status, err := post(t.Context(), &http.Client{}, ledger.URL(), "y", outside.Note{EventID: "y"}); err == nil {
		t.Errorf("closed, and it answers %d", status)
	}
}
