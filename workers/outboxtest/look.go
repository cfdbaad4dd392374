package outboxtest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// look reads the tables. Each look is one statement, and so one snapshot: what is quiet in it stays quiet, until somebody
// appends or an operator acts.
type look struct {
	pool      *pgxpool.Pool
	schema    outbox.Schema
	consumers []string
	left      []string // those that the registry's code does not run
}

func newLook(pool *pgxpool.Pool, schema outbox.Schema, reg *outbox.Registry) *look {
	l := &look{pool: pool, schema: schema, consumers: []string{}}
	for _, c := range reg.Consumers() {
		l.consumers = append(l.consumers, c.Name)
	}
	return l
}

func (l *look) sql(query string) string { return outboxdb.In(string(l.schema), query) }

// state is what is left to do.
type state struct {
	outbox    int64
	consumers []consumerState
	inFlight  []heldEvent
}

type consumerState struct {
	Name   string
	Paused bool
	Ahead  int64
	// InFlight have a job of their own. Settling have come to an end that a drain has yet to note.
	InFlight, Settling int64
	// Waiting are those that do not wait behind a dead letter.
	Waiting int64
	// Jobs are unfinished deliver jobs, Lanes those of a backfill that is under way.
	Jobs, Lanes int64
	Left        bool `db:"-"`
}

func (c consumerState) quiet() bool {
	return c.Ahead+c.InFlight+c.Settling+c.Waiting+c.Jobs+c.Lanes == 0
}

func (s *state) quiet() bool {
	return s.outbox == 0 && !slices.ContainsFunc(s.consumers, func(c consumerState) bool { return !c.quiet() })
}

// stuck reports whether all that is open belongs to consumers that nobody runs.
func (s *state) stuck() bool {
	return s.outbox == 0 && !slices.ContainsFunc(s.consumers, func(c consumerState) bool { return !c.quiet() && !c.Paused && !c.Left })
}

type heldEvent struct {
	Consumer, Type, Key string
	Attempts            int
	Error               *string
}

// String lists what is open, each on a line of its own.
func (s *state) String() string {
	var b strings.Builder
	if s.outbox > 0 {
		fmt.Fprintf(&b, "\n\tthe outbox holds %d events", s.outbox)
	}
	for _, c := range s.consumers {
		if c.quiet() {
			continue
		}
		var open []string
		for _, part := range []struct {
			n    int64
			what string
		}{
			{c.Ahead, "not come to"},
			{c.InFlight, "in flight"},
			{c.Settling, "settled and not noted"},
			{c.Waiting, "waiting"},
			{c.Jobs, "unfinished deliver jobs"},
			{c.Lanes, "lanes in a backfill"},
		} {
			if part.n > 0 {
				open = append(open, fmt.Sprintf("%d %s", part.n, part.what))
			}
		}
		fmt.Fprintf(&b, "\n\tconsumer %s: %s", c.Name, strings.Join(open, ", "))
		if c.Paused {
			b.WriteString("; it is paused")
		}
		if c.Left {
			b.WriteString("; its subscriptions in the database go beyond this registry's code, or its name was given up")
		}
	}
	for _, e := range s.inFlight {
		fmt.Fprintf(&b, "\n\t%s at %s of %q, attempts begun: %d", e.Consumer, e.Type, e.Key, e.Attempts)
		if e.Error != nil {
			fmt.Fprintf(&b, ", the last error: %s", *e.Error)
		}
	}
	return b.String()
}

const stateQuery = `
SELECT c.name, c.paused_at IS NOT NULL AS paused,
       (SELECT count(*) FROM /*schema*/cursors k JOIN /*schema*/events e ON e.lane = k.lane AND e.pos > k.pos
         WHERE k.consumer = c.name
           AND EXISTS (SELECT FROM /*schema*/consumer_subscriptions s
                        WHERE s.consumer = c.name AND (e.pos > s.from_pos OR k.run IS NOT NULL) AND e.type LIKE s.like_pattern)) AS ahead,
       (SELECT count(*) FROM /*schema*/holds h WHERE h.consumer = c.name AND h.settled_at IS NULL AND h.dead_at IS NULL
           AND NOT EXISTS (SELECT FROM /*schema*/events e WHERE e.lane = h.lane AND e.pos = h.pos AND e.not_before > clock_timestamp())) AS in_flight,
       (SELECT count(*) FROM /*schema*/holds h WHERE h.consumer = c.name AND h.settled_at IS NOT NULL) AS settling,
       (SELECT count(*) FROM /*schema*/waiting w WHERE w.consumer = c.name
           AND NOT EXISTS (SELECT FROM /*schema*/holds h
                            WHERE h.consumer = w.consumer AND h.key = w.key AND h.settled_at IS NULL
                              AND (h.dead_at IS NOT NULL OR NOT NOT EXISTS (SELECT FROM /*schema*/events e WHERE e.lane = h.lane AND e.pos = h.pos AND e.not_before > clock_timestamp())))) AS waiting,
       (SELECT count(*) FROM /*schema*/river_job j WHERE j.kind = 'outbox_deliver' AND j.args ->> 'consumer' = c.name
           AND j.state IN ('available', 'pending', 'retryable', 'running', 'scheduled')
           AND NOT EXISTS (SELECT FROM /*schema*/holds h JOIN /*schema*/events e ON e.lane = h.lane AND e.pos = h.pos
                            WHERE h.job_id = j.id AND h.settled_at IS NULL AND e.not_before > clock_timestamp())) AS jobs,
       (SELECT count(*) FROM /*schema*/cursors k WHERE k.consumer = c.name AND k.run IS NOT NULL) AS lanes
  FROM /*schema*/consumers c WHERE c.name = ANY ($1)
UNION ALL
SELECT '', false, (SELECT count(*) FROM /*schema*/outbox) + (SELECT count(*) FROM /*schema*/scheduled s WHERE s.not_before <= clock_timestamp()), 0, 0, 0, 0, 0
 ORDER BY 1`

func (l *look) state(ctx context.Context) (*state, error) {
	rows, err := l.pool.Query(ctx, l.sql(stateQuery), l.consumers)
	if err != nil {
		return nil, fmt.Errorf("read what is open: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[consumerState])
	if err != nil {
		return nil, fmt.Errorf("read what is open: %w", err)
	}
	for i := range all {
		all[i].Left = slices.Contains(l.left, all[i].Name)
	}
	return &state{outbox: all[0].Ahead, consumers: all[1:]}, nil
}

// inFlight adds some of the events that are in flight, for the message.
func (l *look) inFlight(ctx context.Context, s *state) error {
	rows, err := l.pool.Query(ctx, l.sql(`
SELECT h.consumer, e.type, e.key, h.attempts,
       (SELECT d.error FROM /*schema*/delivery_log d WHERE d.event_id = h.event_id AND d.consumer = h.consumer ORDER BY d.id DESC LIMIT 1) AS error
  FROM /*schema*/holds h JOIN /*schema*/events e ON e.lane = h.lane AND e.pos = h.pos
 WHERE h.consumer = ANY ($1) AND h.settled_at IS NULL AND h.dead_at IS NULL AND (e.not_before IS NULL OR e.not_before <= clock_timestamp()) ORDER BY h.pos LIMIT 10`), l.consumers)
	if err != nil {
		return err
	}
	s.inFlight, err = pgx.CollectRows(rows, pgx.RowToStructByPos[heldEvent])
	return err
}

// counts are where a Settle began.
type counts struct{ head, log int64 }

func (l *look) counts(ctx context.Context) (c counts, err error) {
	err = l.pool.QueryRow(ctx, l.sql(`SELECT head, (SELECT coalesce(max(id), 0) FROM /*schema*/delivery_log) FROM /*schema*/relay_state`)).
		Scan(&c.head, &c.log)
	if err != nil {
		return c, fmt.Errorf("read the outbox's tables, which migrations.Up makes: %w", err)
	}
	return c, nil
}

func (l *look) report(ctx context.Context, before counts) (*Report, error) {
	r := &Report{Dead: []DeadLetter{}}
	err := l.pool.QueryRow(ctx, l.sql(`
SELECT (SELECT head FROM /*schema*/relay_state) - $1::bigint,
       (SELECT count(*) FROM /*schema*/delivery_log WHERE id > $2::bigint AND outcome = 'failed' AND consumer = ANY ($3))`),
		before.head, before.log, l.consumers).Scan(&r.Relayed, &r.FailedAttempts)
	if err != nil {
		return nil, fmt.Errorf("read what happened: %w", err)
	}
	rows, err := l.pool.Query(ctx, l.sql(`
SELECT d.id, d.consumer, d.event_id, d.type, d.key, d.attempts, d.error,
       (SELECT count(*) FROM /*schema*/waiting w WHERE w.consumer = d.consumer AND w.key = d.key AND w.pos > d.pos)
  FROM /*schema*/discarded_jobs d WHERE d.state = 'dead' AND d.consumer = ANY ($1) ORDER BY d.id`), l.consumers)
	if err != nil {
		return nil, fmt.Errorf("read the dead letters: %w", err)
	}
	if r.Dead, err = pgx.CollectRows(rows, pgx.RowToStructByPos[DeadLetter]); err != nil {
		return nil, fmt.Errorf("read the dead letters: %w", err)
	}
	return r, nil
}
