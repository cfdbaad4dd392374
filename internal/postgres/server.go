package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"
)

// Server is a running server, owned by this process.
type Server struct {
	dir      string
	password string
	port     int
	proc     *process
	lock     *os.File
	logFile  string

	stopOnce sync.Once
	stopping chan struct{} // closed once Stop was called
	stopped  chan struct{} // closed once Stop is through
	stopErr  error

	done chan struct{} // closed once the server has ended
	err  error         // valid after done
}

// URL connects to the given database as the superuser. It holds the password: not for logs.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(User, s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Port is the one the server listens on.
func (s *Server) Port() int { return s.port }

// PID is the postmaster's process id.
func (s *Server) PID() int { return s.proc.pid }

// Done is closed when the server has ended. [Server.Err] tells whether it did so by itself.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err is nil as long as the server runs, and when it ended because of Stop.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop ends the server: connections are closed and a checkpoint is written. When that takes longer than 15 s,
// or ctx ends before, it is stopped at once, which the next start recovers from. Every call returns
// after the server has ended, and the same error.
func (s *Server) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		close(s.stopping)
		s.stopErr = s.stop(ctx)
		close(s.stopped)
	})
	<-s.stopped
	return s.stopErr
}

func (s *Server) stop(ctx context.Context) error {
	err := s.proc.stop(ctx, defaultStopTimeout)
	<-s.done
	return err
}

// watch releases the directory when the server has ended, for whatever reason.
func (s *Server) watch() {
	<-s.proc.done
	select {
	case <-s.stopping:
	default:
		s.err = fmt.Errorf("PostgreSQL ended by itself: %w (its log is %s)", s.proc.failure(), s.logFile)
	}
	_ = os.Remove(startedFile(s.dir))
	unlockFile(s.lock)
	close(s.done)
}

// stop asks for a fast shutdown, then for an immediate one, then kills. It returns when the process is reaped.
func (p *process) stop(ctx context.Context, patience time.Duration) error {
	fast, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p.signal(stopFast)
	select {
	case <-p.done:
		return nil
	case <-fast.Done():
	}
	p.signal(stopImmediate)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		p.signal(stopKill)
		<-p.done
	}
	return errors.New("PostgreSQL did not shut down in time and was stopped at once")
}
