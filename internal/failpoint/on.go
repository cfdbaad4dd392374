//go:build faults

package failpoint

import (
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// place is what is known of a point in this process.
type place struct {
	passages atomic.Int64
	armed    atomic.Pointer[order]
}

// order says what is to happen at a point, and at which of its passages.
type order struct {
	left   atomic.Int64
	signal syscall.Signal
}

// places is filled before anything can pass, and only read from then on.
var places = func() map[Point]*place {
	m := make(map[Point]*place, len(all))
	for _, p := range all {
		m[p] = &place{}
	}
	return m
}()

// At marks that the code has come to a point, and does what it is armed to do there, once. It does not return when that is to
// kill the process, and when it is to stop it, not before it is continued.
func At(p Point) {
	at := places[p]
	at.passages.Add(1)
	o := at.armed.Load()
	if o == nil || o.left.Add(-1) != 0 {
		return
	}
	// Whoever continues a stopped process must not find it armed.
	at.armed.CompareAndSwap(o, nil)
	if o.signal == syscall.SIGKILL {
		_, _ = os.Stderr.WriteString("\n" + DiesAt + string(p) + "\n") // unbuffered: it is there when the process is not
	}
	o.strike()
}

// strike signals the very thread that runs this: the signal is taken before the call returns, and not some steps later.
func (o *order) strike() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = syscall.Tgkill(syscall.Getpid(), syscall.Gettid(), o.signal) // of oneself: it cannot fail
	if o.signal == syscall.SIGKILL {
		select {}
	}
}

// Every is the interval at which something is done that is done seldom, or the one of the variable EnvEvery.
func Every(interval time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv(EnvEvery)); err == nil && d > 0 {
		return d
	}
	return interval
}
