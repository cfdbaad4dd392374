package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgoutbox/pgoutbox/migrations"
)

// ready is what /readyz asks.
func (s *service) ready(ctx context.Context) error {
	if s.stopping.Load() {
		return errors.New("the service is stopping")
	}
	current, err := migrations.Current(ctx, s.pool, migrations.Options{Shop: true})
	switch {
	case err != nil:
		return fmt.Errorf("database: %w", err)
	case !current:
		return errors.New("migrations: the schema is not up to date")
	case s.workers != nil:
		return s.workers.Ready()
	}
	return nil
}

// asynchronous asks whether the server has a standby while no commit here waits for one. Any role may ask: of other users'
// connections pg_stat_replication shows it the process and the name, and state, which leaves backups out, only to members of
// pg_monitor; so PostgreSQL's own tools are left out by name, and subscribers by their slots. Whether what
// synchronous_standby_names names is there does not matter: where it is not, commits wait.
const asynchronous = `
SELECT count(*) > 0 AND (btrim(current_setting('synchronous_standby_names')) = ''
                         OR current_setting('synchronous_commit') IN ('off', 'local'))
  FROM pg_stat_replication r
 WHERE coalesce(state, 'streaming') IN ('streaming', 'catchup')
   AND coalesce(application_name, '') NOT IN ('pg_basebackup', 'pg_receivewal', 'pg_recvlogical')
   AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')`

// warnings is what /readyz says of a service that is ready.
func (s *service) warnings(ctx context.Context) []string {
	var risky bool
	if err := s.pool.QueryRow(ctx, asynchronous).Scan(&risky); err != nil || !risky {
		return nil // whether the database answers is ready's question
	}
	return []string{"the standby is asynchronous: a failover to it can lose what was acknowledged"}
}
