package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// serviceURL is the variable that names the service's database: a command line could be read by others.
	serviceURL = "PGOUTBOX_BENCH_SERVICE_URL"
	peakPrefix = "peak "
	// serviceReports is how often it says how many deliveries its handlers have done.
	serviceReports = 20 * time.Millisecond
)

// serviceCmd is the process of the backlog case. It works until its standard input is closed, says all the while how much it has
// done, and at the end its peak memory.
type serviceCmd struct{}

func (serviceCmd) run(ctx context.Context) error {
	// An interrupt from the terminal goes to the bench too, which then closes our input.
	ctx = context.WithoutCancel(ctx)
	pool, err := openPool(ctx, os.Getenv(serviceURL))
	if err != nil {
		return err
	}
	defer pool.Close()
	var done atomic.Int64
	w, err := newWorkers(pool, ours{style: queueing, consumers: backlogConsumers}.registry(&done))
	if err != nil {
		return err
	}
	if err := w.Start(ctx); err != nil {
		return err
	}
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // however it ends, it has ended
		close(closed)
	}()
	ticker := time.NewTicker(serviceReports)
	defer ticker.Stop()
	for open := true; open; {
		select {
		case <-closed:
			open = false
		case <-ticker.C:
			fmt.Println(done.Load())
		}
	}
	if err := stopWorkers(ctx, w); err != nil {
		return err
	}
	peak, err := peakMemory()
	fmt.Println(peakPrefix + strconv.FormatFloat(peak, 'f', 1, 64))
	return err
}

// peakMemory is the most resident memory that this process ever had, in MiB.
func peakMemory() (float64, error) {
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
			if text, found := strings.CutPrefix(lines.Text(), "VmHWM:"); found {
				kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(text, "kB")), 64)
				return kib / 1024, err
			}
		}
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, errors.Join(errors.New("no way to learn the peak memory"), err)
	}
	unit := 1024.0 // KiB
	if runtime.GOOS == "darwin" {
		unit = 1024 * 1024 // bytes
	}
	return float64(usage.Maxrss) / unit, nil
}
