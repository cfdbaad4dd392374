package main

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
)

// A process that has just been killed is no reason for an operator's request to fail: the next one is asked.
func TestOperateWaitsForTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := &slot{name: "process1"}
		done := make(chan error, 1)
		go func() { done <- (&stage{}).operate(t.Context(), at, "POST", "/admin/consumers/ledger/pause", "{}") }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		at.mu.Lock()
		at.api, at.admin = "127.0.0.1:1", "127.0.0.1:1" // where nobody listens
		at.mu.Unlock()
		if err := <-done; !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("it did not ask the next process: %v", err)
		}
	})
}
