package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/faults/cluster"
	"github.com/pgoutbox/pgoutbox/faults/proxy"
	"github.com/pgoutbox/pgoutbox/internal/faultkit"
)

// pool is how many connections a process has. Each reads the catalogue and plans all statements for itself, and in the short form what is
// hurt comes back with new ones all the time: it has fewer.
func (s *stage) pool() int {
	if s.long {
		return 10
	}
	return 6
}

// serviceURL leads through the proxies.
func (s *stage) serviceURL() string {
	u, err := url.Parse(s.base(database))
	if err != nil {
		panic(err) // it is the cluster's own
	}
	hosts := make([]string, len(s.dbs))
	for i, p := range s.dbs {
		hosts[i] = p.Addr()
	}
	u.Host = strings.Join(hosts, ",")
	q := u.Query()
	switch {
	case s.setting == pooled:
		q.Set("default_query_exec_mode", "cache_describe")
	case !s.long: // a connection would make five plans of each statement before it keeps one, and many are killed before
		q.Set("plan_cache_mode", "force_generic_plan")
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// base is the URL that clients would use without the proxies.
func (s *stage) base(db string) string {
	switch {
	case s.pooler != nil:
		return s.pooler.URL(db)
	case s.pair != nil:
		return s.pair.URL(db)
	}
	return s.server.URL(db)
}

// url leads to the server itself.
func (s *stage) url(db string) string {
	if s.pair != nil {
		return s.pair.URL(db)
	}
	return s.server.URL(db)
}

// smallDisk is room for what a stage of that kind writes, and soon filled.
const smallDisk = 1 << 30

func (s *stage) startServers(ctx context.Context) (err error) {
	settings := map[string]string{"max_connections": "400", "shared_buffers": "256MB", "max_wal_size": "1GB", "autovacuum_naptime": "10s"}
	dir := filepath.Join(s.dir, "postgres")
	opts := []cluster.Option{cluster.From(s.template)}
	if s.setting == diskData || s.setting == diskWAL {
		if s.disk, err = cluster.NewDisk(ctx, filepath.Join(s.dir, "disk"), smallDisk); err != nil {
			return err
		}
		s.closes(s.disk.Close)
		settings["max_wal_size"] = "256MB"
		if s.setting == diskWAL {
			opts = append(opts, cluster.WALOn(s.disk.Dir()))
		} else {
			dir = filepath.Join(s.disk.Dir(), "postgres")
		}
	}
	var targets []string
	if s.setting == pair || s.setting == pairAsync {
		if s.pair, err = cluster.StartPair(ctx, dir, s.setting == pair, settings, opts...); err != nil {
			return err
		}
		s.closes(func() error {
			if s.keep {
				return errors.Join(s.pair.Primary().Stop(context.Background()), s.pair.Standby().Kill())
			}
			return s.pair.Close()
		})
		targets = append(targets, s.pair.Primary().Addr(), s.pair.Standby().Addr())
	} else {
		if s.server, err = cluster.Start(ctx, dir, settings, opts...); err != nil {
			return err
		}
		s.closes(func() error {
			if s.keep {
				return s.server.Stop(context.Background())
			}
			return s.server.Close()
		})
		targets = append(targets, s.server.Addr())
	}
	if s.setting == pooled {
		if s.pooler, err = cluster.StartPooler(ctx, filepath.Join(s.dir, "pooler"), s.server.URL(database), nil); err != nil {
			return err
		}
		s.closes(s.pooler.Close)
		targets[0] = s.pooler.Addr()
	}
	for i, target := range targets {
		p, err := proxy.Start(proxy.Options{Target: target, Protocol: proxy.PostgreSQL, Seed: s.seed + 100 + uint64(i)})
		if err != nil {
			return err
		}
		s.dbs = append(s.dbs, p)
		s.closes(p.Close)
	}
	return nil
}

// makeTemplate makes what every stage begins with a copy of: a server, stopped, with the service's schema and the harness's. initdb and the
// migrations take seconds, and come to the same each time.
func makeTemplate(ctx context.Context, dir, binary string) (template *cluster.Server, err error) {
	template, err = cluster.Start(ctx, filepath.Join(dir, "template"), map[string]string{"autovacuum": "off"})
	if err != nil {
		return nil, fmt.Errorf("the template: %w", err)
	}
	err = fill(ctx, template.URL(database), binary)
	if err == nil {
		err = template.Stop(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the template: %w", err), template.Close())
	}
	return template, nil
}

// fill makes the schemas.
func fill(ctx context.Context, databaseURL, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "migrate", "up")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+databaseURL)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate: %w: %s", err, out)
	}
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, faultkit.Schema); err != nil {
		return fmt.Errorf("the harness's schema: %w", err)
	}
	if _, err := conn.Exec(ctx, "update products set stock = 1000000000"); err != nil {
		return fmt.Errorf("the stock: %w", err)
	}
	if _, err := conn.Exec(ctx, preparedLog()); err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	return nil
}
