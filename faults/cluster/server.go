package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/pgoutbox/pgoutbox/internal/postgres"
)

const (
	// startTimeout bounds initdb or crash recovery, and the start.
	startTimeout = 2 * time.Minute
	stopTimeout  = 30 * time.Second
)

// ErrClosed is what a closed [Server] answers.
var ErrClosed = errors.New("the server is closed")

var errRuns = errors.New("the server runs")

// Server is a PostgreSQL server on a port and a data directory that stay the same for its life, through any number of deaths.
// Its superuser is outbox, and it has a database outbox. All methods may be called in any state and from any goroutine; of those
// that change the state one runs at a time.
type Server struct {
	dir      string // as given; the contents can lie elsewhere, see postgres.Start
	binDir   string
	port     int
	settings map[string]string
	base     url.URL

	family family
	warden *warden

	mu      sync.Mutex
	process *postgres.Server // the last one that was started, dead or alive
	wal     string           // where pg_wal lies, if not in dir
	from    *Server          // what it begins as a copy of
	closed  bool
}

// Option says where a server differs from the usual.
type Option func(*Server)

// WALOn has the write-ahead log lie in a folder of that directory, on a [Disk] of its own for instance.
func WALOn(dir string) Option {
	return func(s *Server) { s.wal = filepath.Join(dir, "pg_wal") }
}

// From has a server begin with a copy of all that is in another one, which must be stopped, and its password. That takes a fraction of what
// it takes to make a cluster.
func From(other *Server) Option { return func(s *Server) { s.from = other } }

// Start makes a server in dir, which is created, and returns when it takes connections. The settings are those of
// postgresql.conf and go before the defaults here. Until Close the server is the caller's, whatever becomes of ctx.
func Start(ctx context.Context, dir string, settings map[string]string, opts ...Option) (*Server, error) {
	s, err := newServer(ctx, dir, settings, opts...)
	if err != nil {
		return nil, err
	}
	if s.from != nil {
		err = s.copy(ctx)
	}
	if err == nil {
		err = s.Restart(ctx)
	}
	if err == nil && s.wal != "" {
		err = s.moveWAL(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func newServer(ctx context.Context, dir string, settings map[string]string, opts ...Option) (*Server, error) {
	binDir, err := postgres.Find()
	if err != nil {
		return nil, fmt.Errorf("start a server: %w (Debian: the package postgresql)", err)
	}
	port, err := FreePort(ctx)
	if err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	s := &Server{dir: dir, binDir: binDir, port: port, settings: defaultSettings()}
	maps.Copy(s.settings, settings)
	for _, opt := range opts {
		opt(s)
	}
	// The command is not run: it is asked where the folder is.
	cmd, err := postgres.Command(ctx, dir, filepath.Join(binDir, "postgres"))
	if err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	if s.family, err = newFamily(cmd.Path, cmd.Dir); err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	if s.warden, err = startWarden(killing, s.family.program, s.family.dir); err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	return s, nil
}

// defaultSettings suit several servers on one small machine that die often: little memory, and a standby that lagged is not
// left without the log it needs. What makes commits durable is said here and not by postgres.Config, which would have initdb
// write through to the disk too: the machine itself is not what dies.
func defaultSettings() map[string]string {
	return map[string]string{
		"fsync":                       "on",
		"synchronous_commit":          "on",
		"full_page_writes":            "on",
		"shared_buffers":              "64MB",
		"wal_keep_size":               "512MB",
		"wal_retrieve_retry_interval": "200ms",
		"wal_sender_timeout":          "10s",
		"wal_receiver_timeout":        "10s",
	}
}

// URL connects to the database as the superuser.
func (s *Server) URL(database string) string {
	u := s.base
	u.Path = "/" + database
	return u.String()
}

// Port is the same for life.
func (s *Server) Port() int { return s.port }

// Addr is 127.0.0.1 and the port, for a proxy.
func (s *Server) Addr() string { return address(s.port) }

// Running reports whether the server's first process lives. It can be hung, or on its way up again after the crash of a child.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running()
}

func (s *Server) running() bool {
	if s.process == nil {
		return false
	}
	select {
	case <-s.process.Done():
		return false
	default:
		return true
	}
}

// Restart starts the server again and returns when it takes connections, after crash recovery where that is due. One that
// runs is stopped first.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restart(ctx)
}

func (s *Server) restart(ctx context.Context) error {
	if s.closed {
		return ErrClosed
	}
	if err := s.stop(ctx); err != nil {
		return err
	}
	p, err := postgres.Start(ctx, postgres.Config{
		DataDir: s.dir, BinDir: s.binDir, Port: s.port, Settings: s.settings, StartTimeout: startTimeout,
	})
	if err != nil {
		return err
	}
	s.process = p
	if s.base.Host == "" {
		base, err := url.Parse(p.URL(postgres.Database))
		if err != nil {
			return errors.Join(fmt.Errorf("the server's URL: %w", err), s.family.kill())
		}
		s.base = *base
	}
	return nil
}

// Stop ends the server in order: connections are closed and a checkpoint is written.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop(ctx)
}

func (s *Server) stop(ctx context.Context) error {
	if !s.running() {
		return nil
	}
	if err := s.family.wake(); err != nil {
		return err
	}
	return s.process.Stop(ctx)
}

// Immediate ends the server without a checkpoint, as pg_ctl -m immediate does: the next start recovers.
func (s *Server) Immediate(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running() {
		return nil
	}
	if err := s.family.wake(); err != nil {
		return err
	}
	// An error means that it has ended meanwhile.
	_ = syscall.Kill(s.process.PID(), syscall.SIGQUIT)
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case <-s.process.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop PostgreSQL at once: %w", ctx.Err())
	}
}

// Kill ends all of the server's processes with SIGKILL, and returns when none is left.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kill()
}

func (s *Server) kill() error {
	if err := s.family.kill(); err != nil {
		return err
	}
	if s.process != nil {
		<-s.process.Done() // and so the folder's lock is free
	}
	return nil
}

// Hang stops all of the server's processes with SIGSTOP: the kernel goes on taking connections for them, and nobody answers.
func (s *Server) Hang() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.family.hang()
}

// Wake lets a server that hangs go on.
func (s *Server) Wake() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.family.wake()
}

// Close kills the server and removes its folder. Closing it again does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if err := s.kill(); err != nil {
		return err
	}
	s.closed = true
	s.warden.dismiss()
	return errors.Join(postgres.Remove(s.dir), s.removeWAL())
}

// copy takes over the cluster of the server that this one begins as a copy of.
func (s *Server) copy(ctx context.Context) error {
	other := s.from
	other.mu.Lock()
	defer other.mu.Unlock()
	if other.running() {
		return fmt.Errorf("copy the server in %s: %w", other.dir, errRuns)
	}
	// cp keeps the owner.
	out, err := exec.CommandContext(ctx, "cp", "-a", other.cluster(), filepath.Join(other.family.dir, "password"), s.family.dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy the server in %s: %w: %s", other.dir, err, out)
	}
	return nil
}

// moveWAL puts the log of a new cluster where it belongs.
func (s *Server) moveWAL(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stop(ctx); err != nil {
		return err
	}
	link := filepath.Join(s.cluster(), "pg_wal")
	// mv crosses file systems and keeps the owner.
	if out, err := exec.CommandContext(ctx, "mv", link, s.wal).CombinedOutput(); err != nil {
		return fmt.Errorf("move the log to %s: %w: %s", s.wal, err, out)
	}
	if err := os.Symlink(s.wal, link); err != nil {
		return fmt.Errorf("move the log to %s: %w", s.wal, err)
	}
	return s.restart(ctx)
}

func (s *Server) removeWAL() error {
	if s.wal == "" {
		return nil
	}
	if err := os.RemoveAll(s.wal); err != nil {
		return fmt.Errorf("remove the log: %w", err)
	}
	return nil
}

// cluster is PostgreSQL's own data directory; package postgres documents its layout.
func (s *Server) cluster() string { return filepath.Join(s.family.dir, "cluster") }
