package main

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Who asks for a connection while none is to be had waits for its turn, or is refused when it cannot wait so long; the first that
// is opened opens the gate.
func TestGate(t *testing.T) {
	t.Parallel()
	g := newGate()
	for range connectFree + 1 { // the limiter's own first is free, too
		require.NoError(t, g.before(t.Context(), nil))
	}
	soon, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	require.ErrorIs(t, g.before(soon, nil), context.DeadlineExceeded)
	require.NoError(t, g.before(t.Context(), nil)) // in a fifth of a second
	require.NoError(t, g.after(t.Context(), nil))
	for range connectFree {
		require.NoError(t, g.before(soon, nil))
	}
}

// Those that wait for a turn when the gate opens go at once.
func TestGateOpensForAllWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		for range connectFree + 1 {
			require.NoError(t, g.before(t.Context(), nil))
		}
		var waiting sync.WaitGroup
		for range 20 {
			waiting.Go(func() { assert.NoError(t, g.before(t.Context(), nil)) })
		}
		synctest.Wait()
		began := time.Now()
		require.NoError(t, g.after(t.Context(), nil))
		waiting.Wait()
		require.Zero(t, time.Since(began), "the last one's turn would have been four seconds later")
	})
}
