package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const pollEvery = 20 * time.Millisecond

// Start runs a server on the data directory, which it makes when needed, and returns when the server takes
// connections and has the database [Database]. The server runs until [Server.Stop], whatever becomes of ctx.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	binDir, err := binaries(ctx, cfg.BinDir) // a download has a timeout of its own
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(cfg.StartTimeout, defaultStartTimeout))
	defer cancel()

	dir, acct, err := prepareDir(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL on %s: %w", cfg.DataDir, err)
	}
	s := &Server{
		dir:      dir,
		lock:     lock,
		logFile:  cmp.Or(cfg.LogFile, filepath.Join(dir, "postgres.log")),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
		done:     make(chan struct{}),
	}
	if err := s.start(ctx, cfg, binDir, acct); err != nil {
		unlockFile(lock)
		return nil, fmt.Errorf("start PostgreSQL on %s: %w", cfg.DataDir, err)
	}
	go s.watch()
	return s, nil
}

func (s *Server) start(ctx context.Context, cfg Config, binDir string, acct account) error {
	cluster := clusterDir(s.dir)
	if err := awaitPredecessor(ctx, s.dir, cluster); err != nil {
		return err
	}
	password, err := initCluster(ctx, binDir, s.dir, cfg.Fsync, acct)
	if err != nil {
		return err
	}
	s.password = password

	// A free port can be taken by someone else before the server binds it, and the shared memory of a
	// server that was killed is in use until its last child has noticed: both pass.
	for {
		s.port = cfg.Port
		if s.port == 0 {
			if s.port, err = freePort(ctx); err != nil {
				return err
			}
		}
		said, err := s.launch(ctx, cfg, binDir, acct)
		if err == nil {
			return nil
		}
		again := bytes.Contains(said, []byte("shared memory block")) ||
			cfg.Port == 0 && bytes.Contains(said, []byte("Address already in use"))
		if !again || !pause(ctx, 100*time.Millisecond) {
			return err
		}
	}
}

// launch tries once, and returns what the server wrote meanwhile.
func (s *Server) launch(ctx context.Context, cfg Config, binDir string, acct account) (said []byte, err error) {
	log, err := openLog(s.logFile)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL's log: %w", err)
	}

	cmd := exec.Command(filepath.Join(binDir, "postgres"), cfg.arguments(clusterDir(s.dir), s.port)...)
	cmd.Dir = s.dir
	cmd.Env = serverEnv()
	cmd.Stdout, cmd.Stderr = log, log
	if s.proc, err = startProcess(cmd, acct); err != nil {
		return nil, err
	}
	if err := writeFile(startedFile(s.dir), strconv.Itoa(s.proc.pid)); err == nil {
		err = s.awaitReady(ctx)
		if err == nil {
			return nil, nil
		}
	}
	_ = s.proc.stop(ctx, time.Second)
	said = tail(s.logFile, from)
	if err == nil {
		err = errors.New("it does not answer")
	}
	return said, fmt.Errorf("%w; it said: %s", err, bytes.TrimSpace(said))
}

// awaitReady waits until the server takes the password, and creates the database.
func (s *Server) awaitReady(ctx context.Context) error {
	for {
		err := s.createDatabase(ctx)
		if err == nil {
			return nil
		}
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code != "57P03" { // cannot_connect_now: it is starting up
			return err
		}
		select {
		case <-s.proc.done:
			return fmt.Errorf("it ended: %w", s.proc.failure())
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}

func (s *Server) createDatabase(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", Database).Scan(&exists); err != nil {
		return err
	}
	if exists {
		return nil
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{Database}.Sanitize())
	return err
}

// awaitPredecessor sees to it that no server runs on the cluster. The caller holds the directory's lock, so a server that the last
// owner started has lost it: it is on its way down, and is told so again. One that someone started by hand is left alone.
func awaitPredecessor(ctx context.Context, dir, cluster string) error {
	pid := postmasterPID(cluster)
	if pid == 0 {
		return nil
	}
	started, _ := os.ReadFile(startedFile(dir))
	ours := strings.TrimSpace(string(started)) == strconv.Itoa(pid)
	for told := false; servesDir(pid, cluster) && alive(pid); {
		if !ours {
			return fmt.Errorf("%w: PostgreSQL, process %d, that was not started by this program", ErrInUse, pid)
		}
		if !told {
			_ = interrupt(pid)
			told = true
		}
		if !pause(ctx, pollEvery) {
			return fmt.Errorf("wait for the last server, process %d, to end: %w", pid, ctx.Err())
		}
	}
	// PostgreSQL takes any live process with that id for its predecessor, also one that has come by the id since.
	if err := os.Remove(filepath.Join(cluster, "postmaster.pid")); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove a stale postmaster.pid: %w", err)
	}
	return nil
}

// postmasterPID reads the lock file that a server keeps in its data directory; 0 where there is none.
func postmasterPID(cluster string) int {
	data, err := os.ReadFile(filepath.Join(cluster, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(data), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return max(pid, -pid) // negative: a single-user server
}

func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func tail(path string, from int64) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	said, _ := io.ReadAll(io.NewSectionReader(f, from, 64<<10))
	return said
}
