package main

import (
	"context"
	"testing"
	"time"

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
