package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
)

const (
	lowestPort = 10000
	// The default of Linux, for where the range cannot be read.
	firstEphemeral = 32768
)

var given struct {
	sync.Mutex
	ports map[int]bool
}

// FreePort returns a port of 127.0.0.1 that nobody listens on and that this process is not given twice. It lies below the ports that
// outgoing connections take, so that it can be left and taken again.
func FreePort(ctx context.Context) (int, error) {
	first := firstEphemeral
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var low, high int
		if _, err := fmt.Sscan(string(data), &low, &high); err == nil && low > lowestPort {
			first = low
		}
	}
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = map[int]bool{}
	}
	for ctx.Err() == nil && len(given.ports) < first-lowestPort {
		port := lowestPort + rand.IntN(first-lowestPort)
		if given.ports[port] {
			continue
		}
		given.ports[port] = true
		if free(ctx, port) {
			return port, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return 0, errors.New("find a free port: all have been given away")
}

func free(ctx context.Context, port int) bool {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
