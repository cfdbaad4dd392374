package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// attachTimeout is how long a new standby may take to catch up.
const attachTimeout = time.Minute

// Pair is a primary and a standby that follows it by streaming replication. Its methods may be called from any goroutine; of
// those that change something one runs at a time.
type Pair struct {
	synchronous bool
	dir         string
	url         url.URL

	changing sync.Mutex

	mu               sync.Mutex
	primary, standby *Server
}

// StartPair makes two servers below dir, which must not exist, and returns when the standby streams. When synchronous, a commit is acknowledged once the
// standby has it on disk (synchronous_commit, which the settings may raise to remote_apply), and a primary whose standby is away keeps
// its clients waiting; without, an acknowledged commit may be lost in a failover. The options are the primary's.
func StartPair(ctx context.Context, dir string, synchronous bool, settings map[string]string, opts ...Option) (*Pair, error) {
	p := &Pair{synchronous: synchronous, dir: dir}
	if err := p.start(ctx, dir, settings, opts...); err != nil {
		return nil, errors.Join(fmt.Errorf("start a pair: %w", err), p.Close())
	}
	return p, nil
}

func (p *Pair) start(ctx context.Context, dir string, settings map[string]string, opts ...Option) (err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if p.primary, err = Start(ctx, filepath.Join(dir, "a"), settings, opts...); err != nil {
		return err
	}
	if p.standby, err = newServer(ctx, filepath.Join(dir, "b"), settings); err != nil {
		return err
	}
	p.url = p.primary.base
	p.url.Host += "," + p.standby.Addr()
	p.url.RawQuery += "&target_session_attrs=read-write"
	p.standby.base = p.primary.base
	p.standby.base.Host = p.standby.Addr()
	return p.attach(ctx)
}

// URL names both servers, always in the same order, and leads to the one that takes writes.
func (p *Pair) URL(database string) string {
	u := p.url
	u.Path = "/" + database
	return u.String()
}

// Primary is the server that takes writes, or did so until it died.
func (p *Pair) Primary() *Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.primary
}

// Standby is the other one: after a failover the old primary, dead until Rebuild.
func (p *Pair) Standby() *Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.standby
}

// Failover kills the primary and promotes the standby. It took that long from the kill until the new primary takes writes, which
// has no standby, and waits for none, until Rebuild.
func (p *Pair) Failover(ctx context.Context) (took time.Duration, err error) {
	p.changing.Lock()
	defer p.changing.Unlock()
	old, heir := p.Primary(), p.Standby()
	began := time.Now()
	if err := old.Kill(); err != nil {
		return 0, fmt.Errorf("fail over: %w", err)
	}
	postgresURL := heir.URL("postgres")
	if err := execute(ctx, postgresURL, `SELECT pg_promote(wait => false)`); err != nil {
		return 0, fmt.Errorf("fail over: %w", err)
	}
	err = until(ctx, func() (bool, error) {
		return truth(ctx, postgresURL, `SELECT NOT pg_is_in_recovery()`)
	})
	if err != nil {
		return 0, fmt.Errorf("fail over: %w", err)
	}
	took = time.Since(began)
	p.mu.Lock()
	p.primary, p.standby = heir, old
	p.mu.Unlock()
	return took, nil
}

// Rebuild makes the server that is not the primary its standby, from a new copy, and returns when it streams.
func (p *Pair) Rebuild(ctx context.Context) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	if err := p.attach(ctx); err != nil {
		return fmt.Errorf("rebuild the standby: %w", err)
	}
	return nil
}

// attach makes the standby from the primary's data, starts it, and has commits wait for it if that was asked for.
func (p *Pair) attach(ctx context.Context) error {
	primary, standby := p.Primary(), p.Standby()
	// Until the new standby streams, nobody is to wait for it.
	if err := alter(ctx, primary, ""); err != nil {
		return err
	}
	if err := standby.follow(ctx, primary); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, attachTimeout, errTimeout)
	defer cancel()
	streams := `SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'async')`
	if err := p.await(ctx, streams); err != nil || !p.synchronous {
		return err
	}
	if err := alter(ctx, primary, "*"); err != nil {
		return err
	}
	return p.await(ctx, `SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync')`)
}

func alter(ctx context.Context, s *Server, names string) error {
	return execute(ctx, s.URL("postgres"),
		`ALTER SYSTEM SET synchronous_standby_names = `+quote(names), `SELECT pg_reload_conf()`)
}

func (p *Pair) await(ctx context.Context, condition string) error {
	err := until(ctx, func() (bool, error) { return truth(ctx, p.Primary().URL("postgres"), condition) })
	if err != nil {
		return fmt.Errorf("wait for the standby: %w", err)
	}
	return nil
}

// Close kills both servers and removes the folder. Closing it again does nothing.
func (p *Pair) Close() error {
	p.changing.Lock()
	defer p.changing.Unlock()
	var errs []error
	for _, s := range []*Server{p.Primary(), p.Standby()} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if err := os.Remove(p.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
