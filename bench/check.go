package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// expectation is what has to be true of the database after a run.
type expectation struct {
	consumers []string
	events    int64
	dedupe    string // the table of what was processed
	ordered   bool
	outbox    bool // the run went through our outbox, log and lanes
}

// check fails with all that is wrong: a figure counts only when every effect happened once and, where that was
// promised, in order.
func (x expectation) check(ctx context.Context, pool *pgxpool.Pool) error {
	var wrong []string
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	type tally struct{ Effects, Events, Processed int64 }
	for _, consumer := range x.consumers {
		rows, _ := pool.Query(ctx, `SELECT count(*), count(DISTINCT event_id),
			(SELECT count(*) FROM `+x.dedupe+` WHERE consumer = $1) FROM effects WHERE consumer = $1`, consumer)
		have, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[tally])
		if err != nil {
			return fmt.Errorf("check effects: %w", err)
		}
		if have != (tally{x.events, x.events, x.events}) {
			complain("consumer %s: %d effects of %d events and %d dedupe rows, and should be %d",
				consumer, have.Effects, have.Events, have.Processed, x.events)
		}
	}

	count := func(what, sql string, args ...any) error {
		var n int64
		if err := pool.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
			return fmt.Errorf("check %s: %w", what, err)
		}
		if n != 0 {
			complain("%d %s", n, what)
		}
		return nil
	}
	if err := count("effects of other consumers", `SELECT count(*) FROM effects WHERE consumer <> ALL ($1)`, x.consumers); err != nil {
		return err
	}
	if x.ordered {
		// The numbers of a key have to come as 0, 1, 2 …
		err := count("effects out of order", `SELECT count(*) FROM (
			SELECT n, row_number() OVER (PARTITION BY consumer, key ORDER BY id) - 1 AS place FROM effects) e WHERE n <> place`)
		if err != nil {
			return err
		}
	}
	if x.outbox {
		for _, left := range []struct{ what, sql string }{
			{"events left in the outbox", `SELECT count(*) FROM outbox`},
			{"events quarantined", `SELECT count(*) FROM quarantine`},
			{"holds left", `SELECT count(*) FROM holds`},
			{"events left waiting", `SELECT count(*) FROM waiting`},
			{"dead letters", `SELECT count(*) FROM discarded_jobs`},
		} {
			if err := count(left.what, left.sql); err != nil {
				return err
			}
		}
		var logged int64
		if err := pool.QueryRow(ctx, `SELECT count(DISTINCT id) FROM events`).Scan(&logged); err != nil {
			return fmt.Errorf("check the log: %w", err)
		}
		if logged != x.events {
			complain("%d events in the log, and should be %d", logged, x.events)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %s", errWrong, strings.Join(wrong, "; "))
	}
	return nil
}
