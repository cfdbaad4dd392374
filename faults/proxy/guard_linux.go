package proxy

import (
	"fmt"
	"syscall"
)

// guard keeps a port for its owner while nobody listens on it: a socket that is bound to it and never listens. Others cannot bind the
// port meanwhile and get no outgoing connection on it; connecting to it is refused.
type guard struct{ fd int }

func reserve() (*guard, string, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, "", err
	}
	g := &guard{fd}
	addr, err := g.bind()
	if err != nil {
		_ = g.release()
		return nil, "", err
	}
	return g, addr, nil
}

func (g *guard) bind() (addr string, err error) {
	// Listeners of Go have this set, and who has it may bind a port that another one with it does not listen on.
	if err := syscall.SetsockoptInt(g.fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return "", err
	}
	if err := syscall.Bind(g.fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", err
	}
	name, err := syscall.Getsockname(g.fd)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port), nil
}

func (g *guard) release() error { return syscall.Close(g.fd) }
